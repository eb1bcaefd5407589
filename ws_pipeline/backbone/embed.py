"""Models to vectors: a block of the backbone's latents beside two of the weights themselves.

What it is: of each layer the mean and standard deviation of its token latents, the scale that
normalisation took out of them, and its spectrum; of a model the three blocks of
:mod:`ws_pipeline.backbone.embedding_blocks`. What it is not: a way to windows (``sweep``), nearest
neighbours (``neighbours``, ``evaluation``). Reads shards: each model once for its latents, and once
more for its blocks, a layer at a time.

Source: METHOD 5; SANE (arXiv 2406.09997) averages over tokens, so that large layers drown small
ones. Ours lets layers count alike, keeps what an average over layers loses, and puts beside the
latents what no order of hidden units changes (docs/experiments.md has what each block is good for).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from ws_pipeline.arrays import NUM_SCALE_FEATURES
from ws_pipeline.backbone.devices import autocast, choose_precision
from ws_pipeline.backbone.embedding_blocks import describe_weights, join_blocks
from ws_pipeline.backbone.latent_sums import LatentSums
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.normalization import MIN_STD, ScaledTokens, require_finite
from ws_pipeline.backbone.sweep import (
    SweptBatch,
    choose_window,
    layout_of,
    open_models,
    sweep_models,
)
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_matrices import sample_matrices
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.tokens.windows import ModelTokens
from ws_pipeline.weights.spectra import SPECTRUM_NAMES

FloatArray = npt.NDArray[np.float64]

EMBEDDING_SCHEMA: dict[str, pl.DataType] = {
    "hub_id": pl.String(),
    "repo_id": pl.String(),
    "revision": pl.String(),
    "embedding": pl.List(pl.Float32()),
    "layers": pl.List(
        pl.Struct({"name": pl.String(), "role": pl.String(), "embedding": pl.List(pl.Float32())})
    ),
}
"""One row per model; vectors of ``EMBEDDING_SIZE`` and :func:`layer_size` numbers."""


def layer_size(latent_size: int) -> int:
    """Return the numbers of a layer's vector: (mean, std) of latents, scale, spectrum."""
    return 2 * latent_size + NUM_SCALE_FEATURES + len(SPECTRUM_NAMES)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVector:
    """What is said of one model.

    Attributes:
        embedding: ``(EMBEDDING_SIZE,)``.
        layers: ``(layers, layer_size)``.
    """

    embedding: FloatArray
    layers: FloatArray


def describe_model(model: ModelTokens, sums: LatentSums) -> ModelVector:
    """Return the vectors of a model; its weights are read once, a layer at a time.

    Args:
        model: Its layers' mean and std are the scale.
        sums: Over the latents of its tokens.
    """
    scale = scale_features(model.layers)
    weights = describe_weights(sample_matrices(model.values, model.layers))
    latents = np.concatenate((sums.spectra(), scale), axis=-1)
    return ModelVector(
        embedding=join_blocks(latents, weights),
        layers=np.concatenate((sums.moments(), scale, weights.spectra), axis=-1),
    )


def scale_features(layers: Sequence[TokenLayer]) -> FloatArray:
    """Return what normalisation takes out of each layer, ``(layers, NUM_SCALE_FEATURES)``."""
    moments = [(layer.mean, max(layer.std, MIN_STD)) for layer in layers]
    mean, std = torch.tensor(moments, dtype=torch.float64).reshape(-1, 2, 1).unbind(1)
    return np.asarray(ScaledTokens(mean, mean, std).features().numpy())


def embed_models(
    backbone: Backbone,
    store: Store,
    corpus_rows: pl.DataFrame,
    *,
    window: int | None = None,
    halo: int | None = None,
) -> pl.DataFrame:
    """Embed the models of corpus rows.

    Args:
        backbone: On the device that it shall run on.
        store: Where the shards are.
        corpus_rows: Rows of `corpus/splits`.
        window: Tokens that the backbone sees at once, halos included; None for the window that it
            was trained on.
        halo: Tokens of context on either side that are not kept; None for an eighth of the window.

    Returns:
        A frame of `EMBEDDING_SCHEMA` in the order of the rows.
    """
    rows = corpus_rows.to_dicts()
    models = open_models(backbone, store, rows)
    vectors = embed_tokens(backbone, models, window=window, halo=halo)
    records = [
        _record(row, [(layer["name"], layer["role"]) for layer in row["layers"]], vector)
        for row, vector in zip(rows, vectors, strict=True)
    ]
    return pl.DataFrame(records, schema=EMBEDDING_SCHEMA)


def embed_checkpoint(
    backbone: Backbone, path: str | Path, *, window: int | None = None, halo: int | None = None
) -> dict[str, Any]:
    """Embed a checkpoint that is not in any corpus, planned and packed on the way.

    Args:
        backbone: On the device that it shall run on.
        path: A safetensors file, a sharded folder or a repo folder.
        window: As for :func:`embed_models`.
        halo: As for :func:`embed_models`.

    Returns:
        One record of `EMBEDDING_SCHEMA` whose `repo_id` is the path; it has no id or revision.

    Raises:
        WeightsError: If nothing in it can be tokenised, or weights are not finite.
    """
    model = ModelTokens.open_path(path, layout_of(backbone))
    names = [(layer.name, layer.role) for layer in model.layers]
    (vector,) = embed_tokens(backbone, [model], window=window, halo=halo)
    return _record({"hub_id": "", "repo_id": str(path), "revision": ""}, names, vector)


def embed_tokens(
    backbone: Backbone,
    models: Iterable[ModelTokens],
    *,
    window: int | None = None,
    halo: int | None = None,
) -> Iterator[ModelVector]:
    """Yield the vectors of models, in order; see :func:`embed_models` for the arguments."""
    window, halo = choose_window(backbone, window, halo)
    for model, sums in pool_models(backbone, models, window=window, halo=halo):
        yield describe_model(model, sums)


def pool_models(
    backbone: Backbone, models: Iterable[ModelTokens], *, window: int, halo: int
) -> Iterator[tuple[ModelTokens, LatentSums]]:
    """Yield each model with its pooled latents, in order; a batch of models is open at a time."""
    size = backbone.config.latent_size
    device = next(backbone.parameters()).device
    waiting: deque[tuple[ModelTokens, LatentSums]] = deque()

    def opened() -> Iterator[ModelTokens]:
        for model in models:
            waiting.append((model, LatentSums.zeros(len(model.layers), size)))
            yield model

    first = 0  # the model whose sums wait in front
    for batch in sweep_models(opened(), window=window, halo=halo, device=device):
        latents = encode_batch(backbone, batch)
        layers = batch.windows.positions[..., 1].cpu().numpy()
        for row, chunk in enumerate(batch.chunks):
            while first < chunk.model:
                yield waiting.popleft()
                first += 1
            waiting[0][1].add(layers[row, chunk.kept], latents[row, chunk.kept])
    yield from waiting


@torch.no_grad()
def encode_batch(backbone: Backbone, batch: SweptBatch) -> npt.NDArray[np.float64]:
    """Return the latents of a batch, ``(batch, window, latent_size)``.

    Raises:
        WeightsError: ``non_finite_weights``; a float64 layer may be beyond float32.
    """
    require_finite(batch.windows.tokens, batch.windows.mask)
    device = batch.windows.tokens.device
    backbone.eval()
    with autocast(choose_precision("auto", device), device):
        latents = backbone.encode(*batch.windows)
    return latents.double().cpu().numpy()


def _record(
    row: Mapping[str, Any], layers: Sequence[tuple[str, str]], vector: ModelVector
) -> dict[str, Any]:
    return {
        "hub_id": row["hub_id"],
        "repo_id": row["repo_id"],
        "revision": row["revision"],
        "embedding": vector.embedding.astype(np.float32).tolist(),
        "layers": [
            {"name": name, "role": role, "embedding": numbers.tolist()}
            for (name, role), numbers in zip(layers, vector.layers.astype(np.float32), strict=True)
        ],
    }
