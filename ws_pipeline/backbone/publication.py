"""The end of a training: the model's folder, renamed into place, and what is said of it. Does I/O.

A folder ``model/`` is complete or it is not there. It says itself what it was made from
(`training.json`), so a second run of the same job takes it over and another job refuses it.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ws_pipeline.backbone.checkpoints import CheckpointFolder, publish_folder
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.errors import ConfigError
from ws_pipeline.storage.objects import file_sha256

MODEL_FOLDER = "model"
RECORD_FILE = "training.json"
RESULT_FILE = "result.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        job_digest: Of everything that decides the weights.
        recipe_name: Of the recipe.
        recipe_digest: Of the recipe's content.
        snapshot: Of the corpus.
        model_sha256: Of model.safetensors.
        mlflow_run_id: Empty without MLflow.
        mlflow_url: Empty if no UI is known.
        num_params: Trainable numbers.
        num_steps: Optimiser steps.
        num_models: Models by split.
        metrics: Final losses and errors.
        seconds: Wall time of the attempt that ended it, from the start of the process.
        tokens_per_second: Of all processes, while that attempt's training steps ran.
        precision: Of matrix products.
        device: Its type.
    """

    job_digest: str
    recipe_name: str
    recipe_digest: str
    snapshot: str
    model_sha256: str
    mlflow_run_id: str
    mlflow_url: str
    num_params: int
    num_steps: int
    num_models: Mapping[str, int]
    metrics: Mapping[str, float]
    seconds: float
    tokens_per_second: float
    precision: str
    device: str

    def metadata(self) -> dict[str, Any]:
        """Return what a materialisation shows, flat."""
        hidden = {"metrics", "num_models", "job_digest", "recipe_name", "recipe_digest", "snapshot"}
        flat = {name: value for name, value in asdict(self).items() if name not in hidden}
        flat |= {f"num_{split}_models": count for split, count in self.num_models.items()}
        return flat | {name.replace("/", "_"): value for name, value in self.metrics.items()}


def find_result(job: TrainJob) -> TrainingResult | None:
    """Return the result of a job whose model is there already.

    Raises:
        ConfigError: If the folder holds the model of another job.
    """
    path = Path(job.out_dir) / MODEL_FOLDER / RECORD_FILE
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.get("job_digest") != job.digest():
        raise ConfigError(
            f"TrainJob: out_dir must be empty or of the same job, but {path.parent} was trained "
            "from another snapshot or configuration; choose another out_dir or remove it"
        )
    names = TrainingResult.__dataclass_fields__
    return TrainingResult(**{name: record[name] for name in names})


def publish_model(
    backbone: Backbone, checkpoints: CheckpointFolder, values: Mapping[str, Any]
) -> TrainingResult:
    """Write ``model/`` beside the checkpoints, complete or not at all.

    Args:
        backbone: The trained model.
        checkpoints: Of the run; its staging folder is used.
        values: Fields of the result, all but `model_sha256`.
    """
    staging = checkpoints.clear_staging() / MODEL_FOLDER
    backbone.save_pretrained(staging)
    digest = file_sha256(staging / "model.safetensors")
    result = TrainingResult(**values, model_sha256=digest)
    made_with = {"torch": torch.__version__, "python": platform.python_version()}
    _write(staging / RECORD_FILE, asdict(result) | {"made_with": made_with})
    publish_folder(staging, checkpoints.out_dir / MODEL_FOLDER)
    return result


def write_result(result: TrainingResult, out_dir: Path) -> None:
    """Write `result.json`, replacing an older one in one step."""
    temporary = out_dir / f"{RESULT_FILE}.tmp"
    _write(temporary, asdict(result))
    temporary.replace(out_dir / RESULT_FILE)


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")
