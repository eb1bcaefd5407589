"""One training as a file: what to train, on what, and where everything goes. No torch.

Belongs here: the JSON that a launcher writes and the trainer reads. Does not: choices of values
(``presets``, ``recipes``). I/O only in :meth:`TrainJob.read` and :meth:`TrainJob.write`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ws_pipeline.backbone.config import (
    BackboneConfig,
    LossConfig,
    TrainingConfig,
    ViewConfig,
    build,
    check_range,
)
from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.mixture import Mixture

TRAINER_VERSION = "3"
"""Raise it when the same job would give other weights: existing models are then made again."""

MAX_PROCESSES = 65_536

MAX_JOB_BYTES = 16 * 2**20
"""A job is a few kilobytes; anything this large is another file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """One training.

    Attributes:
        recipe_name: Of the recipe, for people.
        recipe_digest: Of the recipe's content.
        recipe: The whole recipe as plain nested values; logged as parameters.
        store_root: Where blobs and snapshots lie.
        snapshot: Digest of the corpus snapshot.
        backbone: The network.
        loss: What is minimised.
        views: What the encoder sees.
        training: The optimiser's path.
        layout: How layers are cut into tokens.
        mixture: How often each family is drawn.
        out_dir: Checkpoints, the model and `result.json` go here.
        mlflow_tracking_uri: Empty for a run without MLflow.
        mlflow_experiment: One per study.
        mlflow_ui_url: Where a person sees the runs; used for links when the URI is a database.
        tags: MLflow tags, such as `dagster_run_id` and `dagster_url`.
        num_processes: How many the launcher has to start; asserted.
    """

    recipe_name: str
    recipe_digest: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    store_root: str
    snapshot: str
    backbone: BackboneConfig
    loss: LossConfig = field(default_factory=LossConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    layout: TokenLayout = field(default_factory=TokenLayout)
    mixture: Mixture = field(default_factory=Mixture)
    out_dir: str
    mlflow_tracking_uri: str = ""
    mlflow_experiment: str = "backbones"
    mlflow_ui_url: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    num_processes: int = 1

    def __post_init__(self) -> None:
        """Check bounds and that the parts fit together.

        Raises:
            ConfigError: With the field, its bound and the value that came.
        """
        check_range(self, "num_processes", 1, MAX_PROCESSES)
        parts = self.num_processes * self.training.accumulation
        if self.training.batch_size % parts:
            raise ConfigError(
                "TrainJob: training.batch_size must be a multiple of num_processes * accumulation ="
                f" {self.num_processes} * {self.training.accumulation}, "
                f"got {self.training.batch_size}"
            )
        if self.views.mixtures > 0.0 and self.training.batch_size // self.num_processes % 2:
            raise ConfigError(
                "TrainJob: training.batch_size must leave each process an even number of windows "
                "when views.mixtures mixes them in pairs, "
                f"got {self.training.batch_size} for {self.num_processes}"
            )
        if self.training.sharding != "none" and self.num_processes == 1:
            raise ConfigError(
                "TrainJob: training.sharding = 'fsdp2' needs num_processes of at least 2, got 1"
            )
        if (self.layout.kind, self.layout.token_size) != (
            self.backbone.layout,
            self.backbone.token_size,
        ):
            raise ConfigError(
                "TrainJob: backbone.layout and token_size must be those of the token layout, "
                f"{self.layout.kind} {self.layout.token_size}, "
                f"got {self.backbone.layout} {self.backbone.token_size}"
            )
        if self.loss.contrastive_weight > 0.0 and not self.backbone.projection_size:
            raise ConfigError(
                "TrainJob: backbone.projection_size must be positive with a contrastive weight of "
                f"{self.loss.contrastive_weight:g}, got 0"
            )

    def digest(self) -> str:
        """Return the sha256 of everything that decides the weights; not of where they are put."""
        decisive = (
            "snapshot",
            "backbone",
            "loss",
            "views",
            "training",
            "layout",
            "mixture",
            "num_processes",
        )
        values = dataclasses.asdict(self)
        content = {"trainer": TRAINER_VERSION} | {name: values[name] for name in decisive}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the job as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "TrainJob":
        """Parse what :meth:`to_json` gave.

        Raises:
            ConfigError: If it is not JSON, or names or values are out of bounds.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(f"A job must be JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"A job must be a JSON object, got {type(values).__name__}")
        parts: dict[str, Any] = {
            "backbone": lambda part: build(BackboneConfig, part),
            "loss": lambda part: build(LossConfig, part),
            "views": lambda part: build(ViewConfig, part),
            "training": lambda part: build(TrainingConfig, part, tuples=("betas",)),
            "layout": lambda part: build(TokenLayout, part),
            "mixture": lambda part: build(Mixture, part),
        }
        for name, parse in parts.items():
            if name in values:
                values[name] = parse(values[name])
        return build(cls, values)

    def write(self, path: Path) -> None:
        """Write the job, replacing an older one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "TrainJob":
        """Read a job.

        Raises:
            MissingInputError: If there is no such file.
            ConfigError: If it is not a job.
        """
        if not path.is_file():
            raise MissingInputError(f"A job file must exist, but {path} is none.")
        if path.stat().st_size > MAX_JOB_BYTES:
            raise ConfigError(f"A job is at most {MAX_JOB_BYTES} bytes; {path} is larger.")
        return cls.from_json(path.read_text(encoding="utf-8"))
