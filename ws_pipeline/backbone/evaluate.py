"""How well a backbone gives back the weights of whole models, layer by layer. Reads shards.

The relative error of a layer is ``||w_hat - w||^2 / ||w - mean(w)||^2``: 1 is what the layer's mean
scores, and a quiet layer counts as much as a loud one. Summaries and intervals are not made here
(``evaluation.reconstruction``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from ws_pipeline.backbone.devices import autocast, choose_precision
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.normalization import ScaledTokens, denormalize, scale_from_features
from ws_pipeline.backbone.sweep import (
    SweptBatch,
    choose_window,
    open_models,
    sweep_models,
)
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.windows import ModelTokens

RECONSTRUCTION_SCHEMA: dict[str, pl.DataType] = {
    "hub_id": pl.String(),
    "layer": pl.String(),
    "role": pl.String(),
    "num_params": pl.Int64(),
    "relative_error": pl.Float64(),
    "relative_error_decoded_scale": pl.Float64(),
}
"""`relative_error` restores the scale that normalisation took out; `.._decoded_scale` takes the
decoder's word for it and is NaN for a backbone without scale features. NaN: constant weights."""


def reconstruct_models(
    backbone: Backbone,
    store: Store,
    corpus_rows: pl.DataFrame,
    *,
    window: int | None = None,
    halo: int | None = None,
) -> pl.DataFrame:
    """Encode and decode the models of corpus rows.

    Args:
        backbone: On the device that it shall run on.
        store: Where the shards are.
        corpus_rows: Rows of `corpus/splits`.
        window: Tokens that the backbone sees at once, halos included; None for the window that it
            was trained on.
        halo: Tokens of context on either side that are not kept; None for an eighth of the window.

    Returns:
        A frame of `RECONSTRUCTION_SCHEMA`, one row per layer.
    """
    window, halo = choose_window(backbone, window, halo)
    rows = corpus_rows.to_dicts()
    models = open_models(backbone, store, rows)
    errors = layer_errors(
        backbone, models, [row["layers"] for row in rows], window=window, halo=halo
    )
    pairs = zip(rows, errors, strict=True)
    records = [record for row, sums in pairs for record in _rows(row, sums)]
    return pl.DataFrame(records, schema=RECONSTRUCTION_SCHEMA)


def layer_errors(
    backbone: Backbone,
    models: Iterator[ModelTokens],
    layers: Sequence[Sequence[Mapping[str, Any]]],
    *,
    window: int,
    halo: int,
) -> list[npt.NDArray[np.float64]]:
    """Return per model the sums over each layer, ``(layers, 3)``.

    The three are: squared error, squared error with the decoded scale, squared distance from the
    layer's mean.
    """
    sums = [np.zeros((len(each), 3)) for each in layers]
    means = [np.array([layer["mean"] for layer in each]) for each in layers]
    device = next(backbone.parameters()).device
    for batch in sweep_models(models, window=window, halo=halo, device=device):
        given, decoded = _reconstruct(backbone, batch)
        truth = batch.windows.tokens.double().cpu().numpy()
        mask = batch.windows.mask.cpu().numpy()
        index = batch.windows.positions[..., 1].cpu().numpy()
        for row, chunk in enumerate(batch.chunks):
            at = (row, chunk.kept)
            of_layer = index[at]
            centre = means[chunk.model][of_layer][:, None]
            squares = [
                np.where(mask[at], (each - truth[at]) ** 2, 0.0).sum(axis=-1)
                for each in (given[at], decoded[at], centre)
            ]
            np.add.at(sums[chunk.model], of_layer, np.stack(squares, axis=-1))
    return sums


@torch.no_grad()
def _reconstruct(
    backbone: Backbone, batch: SweptBatch
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return true weights as they come back: with the given scale, and with the decoded one."""
    device = batch.windows.tokens.device
    backbone.eval()
    with autocast(choose_precision("auto", device), device):
        output = backbone(*batch.windows)
    mask = batch.windows.mask
    given = denormalize(output.prediction, mask)
    decoded = torch.full_like(given, float("nan"))
    if output.scale is not None:
        scale = scale_from_features(output.scale)
        decoded = denormalize(ScaledTokens(output.prediction.tokens, *scale), mask)
    return given.double().cpu().numpy(), decoded.double().cpu().numpy()


def _rows(row: Mapping[str, Any], sums: npt.NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    for layer, (given, decoded, spread) in zip(row["layers"], sums, strict=True):
        yield {
            "hub_id": row["hub_id"],
            "layer": layer["name"],
            "role": layer["role"],
            "num_params": layer["rows"] * layer["cols"],
            "relative_error": given / spread if spread > 0.0 else float("nan"),
            "relative_error_decoded_scale": decoded / spread if spread > 0.0 else float("nan"),
        }
