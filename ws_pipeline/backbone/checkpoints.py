"""Checkpoints of a training that a kill at any moment cannot lose. Does I/O.

A checkpoint is written to ``staging/``, every file and the folder is flushed to disk, the manifest
with every file's sha256 comes last, and only then is it renamed to ``checkpoints/step-N``; older
ones are pruned after that. What is in ``checkpoints/`` is therefore complete, and it is verified
again before it is used. Accelerate's own `save_state` is not used: it deletes the old checkpoint
before the new one is written, so a kill in between leaves none. Tensors are safetensors, the rest
JSON; nothing is pickled.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ws_pipeline.backbone.parallel import like, whole
from ws_pipeline.errors import NoSpaceError
from ws_pipeline.storage.objects import file_sha256

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A complete, verified checkpoint.

    Attributes:
        folder: Where its files lie.
        step: Optimiser steps that were done; also the position in the data.
        values: What the loop keeps beside tensors, as JSON values.
    """

    folder: Path
    step: int
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """Everything of model and optimiser, whole and on the CPU.

    Attributes:
        model: Weights by name.
        optimizer: Its tensors by ``index.kind``, the parameter's index in the groups.
        groups: Of the optimiser, as JSON values.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    groups: list[dict[str, Any]]

    @classmethod
    def collect(
        cls, model: nn.Module, optimizer: torch.optim.Optimizer, *, main: bool = True
    ) -> "TrainingState":
        """Take the state; a collective where it is sharded, tensor by tensor.

        Args:
            model: The model.
            optimizer: Its optimiser.
            main: Whether this process keeps what it takes.
        """
        content = optimizer.state_dict()
        tensors = {
            f"{index}.{name}": value
            for index, state in content["state"].items()
            for name, value in state.items()
        }
        return cls(
            model=_gather(model.state_dict(), keep=main),
            optimizer=_gather(tensors, keep=main),
            groups=content["param_groups"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFolder:
    """The checkpoints of one run folder.

    Attributes:
        out_dir: The run's folder.
        job_digest: Checkpoints of another job are not taken.
    """

    out_dir: Path
    job_digest: str

    def save(
        self, state: TrainingState, *, step: int, values: dict[str, Any], keep: int
    ) -> Checkpoint:
        """Write and publish a checkpoint, then prune all but the newest `keep`.

        Raises:
            NoSpaceError: If the disk is full; older checkpoints are untouched then.
        """
        staging = self.clear_staging() / f"step-{step:09d}"
        target = self.out_dir / "checkpoints" / staging.name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            staging.mkdir(parents=True)
            _write_state(staging, state)
            _write_json(staging / "state.json", values)
            content = {"step": step, "job_digest": self.job_digest, "files": _digests(staging)}
            _write_json(staging / MANIFEST, content)
            publish_folder(staging, target)
        except (OSError, SafetensorError) as error:
            if _is_full_disk(error):
                raise NoSpaceError(
                    f"No space left for a checkpoint below {self.out_dir}; free some and run "
                    "again, training continues from the newest checkpoint."
                ) from error
            raise
        self._prune(keep)
        return Checkpoint(folder=target, step=step, values=values)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint of this job whose files are what its manifest says."""
        for folder in reversed(self._folders()):
            manifest = read_verified(folder)
            if manifest is None:
                logger.warning("checkpoint %s is damaged and is passed over", folder)
            elif manifest["job_digest"] == self.job_digest:
                values = json.loads((folder / "state.json").read_text(encoding="utf-8"))
                return Checkpoint(folder=folder, step=int(manifest["step"]), values=values)
        return None

    def clear_staging(self) -> Path:
        """Remove what a killed run left half-written; return the staging folder."""
        staging = self.out_dir / "staging"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True, exist_ok=True)
        return staging

    def _folders(self) -> list[Path]:
        """Oldest first; the names have the step in nine digits."""
        return sorted((self.out_dir / "checkpoints").glob("step-*"))

    def _prune(self, keep: int) -> None:
        for folder in self._folders()[:-keep]:
            # Renamed away first: killed while files are deleted, it would look like a damaged one.
            pruned = self.out_dir / "staging" / f"pruned-{folder.name}"
            folder.rename(pruned)
            shutil.rmtree(pruned, ignore_errors=True)


def load_model(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Put the weights back; the model is still whole."""
    model.load_state_dict(load_file(checkpoint.folder / "model.safetensors"), strict=True)


def load_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    """Put optimiser and the global random state back, bit for bit, sharded like its weights."""
    groups = json.loads((checkpoint.folder / "optimizer.json").read_text(encoding="utf-8"))
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(checkpoint.folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = like(tensor, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    random_state = load_file(checkpoint.folder / "random.safetensors")
    torch.set_rng_state(random_state["cpu"])
    if "cuda" in random_state and torch.cuda.is_available():
        torch.cuda.set_rng_state(random_state["cuda"])


def publish_folder(staging: Path, target: Path) -> None:
    """Flush a folder to disk and rename it into place, replacing a damaged one of that name."""
    for path in staging.iterdir():
        _flush(path)
    _flush(staging)
    if target.exists():
        shutil.rmtree(target)
    staging.rename(target)
    _flush(target.parent)


def _write_state(folder: Path, state: TrainingState) -> None:
    """Write tensors as safetensors and the rest as JSON.

    Training draws from generators that are pure functions of (seed, step, rank), so the global
    random state decides nothing of ours; it is kept for what a library may draw.
    """
    save_file(state.model, folder / "model.safetensors")
    save_file(state.optimizer, folder / "optimizer.safetensors")
    _write_json(folder / "optimizer.json", state.groups)
    random_state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_state["cuda"] = torch.cuda.get_rng_state()
    save_file(random_state, folder / "random.safetensors")


def _gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Make tensors whole one after the other, so that one at a time is whole on the device."""
    kept = {}
    for name, tensor in tensors.items():
        complete = whole(tensor)
        if keep:
            kept[name] = complete.cpu().contiguous()
    return kept


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir())}


def read_verified(folder: Path) -> dict[str, Any] | None:
    """Return a checkpoint's manifest, or None if anything is not as it says."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        same = all(file_sha256(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if same and {"step", "job_digest"} <= manifest.keys() else None


def _is_full_disk(error: Exception) -> bool:
    """Say whether an error is ENOSPC; safetensors 0.8 wraps it into a text."""
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)


def _flush(path: Path) -> None:
    """Fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
