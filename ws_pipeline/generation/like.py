"""New checkpoints like given ones, from files to files: what ``ws-pipeline generate`` does. I/O.

Every model gets a folder of its own that loads as its anchors do, and a record of what it was made
of. There is no data set here, so nothing is chosen by validation and BatchNorm's running statistics
are the first anchor's; the record names every tensor that was copied.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ws_pipeline import __version__
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.generation.anchors import align_anchors
from ws_pipeline.generation.checkpoints import write_checkpoint
from ws_pipeline.generation.config import DensityConfig
from ws_pipeline.generation.generator import Generator
from ws_pipeline.generation.template import Template, Weights
from ws_pipeline.storage.objects import file_sha256
from ws_pipeline.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedModel:
    """One model that was written.

    Attributes:
        folder: Where.
        nearest_anchor: The one that it is closest to.
        distance: L2 over generated weights to that anchor, in units of the anchor's norm.
    """

    folder: Path
    nearest_anchor: str
    distance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationResult:
    """What came of a call.

    Attributes:
        copied: Tensors that every model has from the first anchor.
        reconstruction_error: Of the anchors encoded and decoded: median over layers of
            ``||w_hat - w||^2 / ||w - mean(w)||^2``. What is near 1 is not generated from anything.
    """

    models: tuple[GeneratedModel, ...]
    copied: tuple[str, ...]
    reconstruction_error: float


def generate_like(
    backbone: Backbone,
    paths: Sequence[Path],
    out: Path,
    *,
    config: DensityConfig,
    num_models: int = 1,
    seed: int = 0,
    provenance: str = "",
) -> GenerationResult:
    """Write models that load like the given checkpoints.

    Args:
        backbone: Encodes and decodes.
        paths: Anchors of one shape: files or folders.
        out: Gets a folder ``model-000``, ``model-001``, .. for each.
        config: What is drawn from.
        num_models: How many.
        seed: Of the draws.
        provenance: What the record says of the backbone.

    Raises:
        WeightsError: The anchors differ in shape (``conflict``), or one cannot be tokenised.
    """
    opened = [Template.open(path) for path in paths]
    template = opened[0][0]
    for path, (other, _) in zip(paths, opened, strict=True):
        template.require_same_shape(other, str(path))
    anchors = align_anchors([weights for _, weights in opened], template.config, seed=seed)
    generator = Generator(backbone, template, anchors, config)
    error = reconstruction_error(template, anchors, generator.reconstruct())
    copied = tuple(sorted(template.carried))
    record = {
        "version": __version__,
        "anchors": [_describe(path) for path in paths],
        "backbone": provenance,
        "density": dataclasses.asdict(config),
        "seed": seed,
        "copied": list(copied),
        "reconstruction_error": error,
    }
    models = []
    for index, weights in enumerate(generator.draw(num_models, seed=seed)):
        folder = out / f"model-{index:03d}"
        nearest, distance = _find_nearest(template, weights, anchors)
        name = str(paths[nearest])
        own = {"index": index, "nearest_anchor": name, "distance": distance}
        write_checkpoint(folder, weights, paths[0], record=record | own)
        models.append(GeneratedModel(folder=folder, nearest_anchor=name, distance=distance))
    return GenerationResult(models=tuple(models), copied=copied, reconstruction_error=error)


def reconstruction_error(
    template: Template, anchors: Sequence[Weights], decoded: Sequence[Weights]
) -> float:
    """Return the median relative error over the layers of all anchors that are not constant."""
    errors = []
    for weights, again in zip(anchors, decoded, strict=True):
        for one, other in zip(
            template.to_matrices(weights), template.to_matrices(again), strict=True
        ):
            spread = float(((one - one.mean()) ** 2).sum())
            if spread > 0.0:
                errors.append(float(((other - one) ** 2).sum()) / spread)
    return float(np.median(errors)) if errors else 0.0


def _find_nearest(
    template: Template, weights: Weights, anchors: Sequence[Weights]
) -> tuple[int, float]:
    own = np.concatenate([matrix.reshape(-1) for matrix in template.to_matrices(weights)])
    tiny = np.finfo(np.float64).tiny
    distances = []
    for anchor in anchors:
        other = np.concatenate([matrix.reshape(-1) for matrix in template.to_matrices(anchor)])
        distances.append(
            float(np.linalg.norm(own - other)) / max(float(np.linalg.norm(other)), tiny)
        )
    nearest = int(np.argmin(distances))
    return nearest, distances[nearest]


def _describe(path: Path) -> dict[str, Any]:
    files = Checkpoint.open(path).files
    return {"path": str(path), "sha256": {file.name: file_sha256(file.path) for file in files}}
