"""Whole models as latents with the scale of their layers, and back. Models read themselves.

What it is: the walk of ``backbone.sweep`` in both directions, with a halo, so that the window that
a token is decoded in shows the neighbours that it was encoded with. What it is not: a density
(``density``) or a file (``template``, ``checkpoints``). Matrix products are float32 here: a code is
made once, and bf16 would cost a thousandth of every weight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.normalization import require_finite
from ws_pipeline.backbone.sweep import SweptBatch, choose_window, sweep_models
from ws_pipeline.errors import ConfigError
from ws_pipeline.tokens.layout import join_tokens
from ws_pipeline.tokens.windows import ModelTokens
from ws_pipeline.weights.normalization import log_std

Matrices = list[npt.NDArray[np.float64]]
"""The matrix [W|b] of every token layer of a model, ``(rows, cols)`` each, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCode:
    """One model as the backbone sees it.

    Attributes:
        latents: ``(tokens, latent_size)``.
        scale: What normalisation took out of each layer, (mean, log std): ``(layers, 2)``.
    """

    latents: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float64]


@torch.no_grad()
def encode_models(backbone: Backbone, models: Sequence[ModelTokens]) -> list[ModelCode]:
    """Encode models, cut as the backbone was trained on them.

    Raises:
        ConfigError: The backbone normalises by anything but the layer.
        WeightsError: ``non_finite_weights``.
    """
    _require_layer_scale(backbone)
    backbone.eval()
    latents = [
        np.zeros((model.num_tokens, backbone.config.latent_size), dtype=np.float32)
        for model in models
    ]
    for batch in _sweep(backbone, models):
        require_finite(batch.windows.tokens, batch.windows.mask)
        encoded = backbone.encode(*batch.windows).float().cpu().numpy()
        for row, chunk in enumerate(batch.chunks):
            latents[chunk.model][chunk.keep_start : chunk.keep_stop] = encoded[row, chunk.kept]
    return [
        ModelCode(latents=code, scale=_layer_scale(model))
        for code, model in zip(latents, models, strict=True)
    ]


@torch.no_grad()
def decode_models(
    backbone: Backbone, codes: Sequence[ModelCode], template: ModelTokens
) -> list[Matrices]:
    """Decode codes of models of one shape.

    Args:
        backbone: The one that encoded them.
        codes: What to decode.
        template: Any model of that shape: its layers, masks and positions count, no weight does.

    Returns:
        True weights of each, layer by layer.
    """
    _require_layer_scale(backbone)
    backbone.eval()
    size = template.table.layout.token_size
    tokens = np.zeros((len(codes), template.num_tokens, size), dtype=np.float64)
    for batch in _sweep(backbone, [template] * len(codes)):
        shape = (*batch.windows.mask.shape[:2], backbone.config.latent_size)
        latents = torch.zeros(shape)
        for row, chunk in enumerate(batch.chunks):
            code = codes[chunk.model].latents[chunk.start : chunk.stop]
            latents[row, : len(code)] = torch.from_numpy(code)
        decoded, _ = backbone.decode(
            latents.to(batch.windows.mask.device),
            batch.windows.mask.any(dim=-1),
            batch.windows.positions,
        )
        values = decoded.double().cpu().numpy()
        for row, chunk in enumerate(batch.chunks):
            tokens[chunk.model, chunk.keep_start : chunk.keep_stop] = values[row, chunk.kept]
    return [
        _join_layers(template, own, code.scale) for own, code in zip(tokens, codes, strict=True)
    ]


def _sweep(backbone: Backbone, models: Sequence[ModelTokens]) -> Iterator[SweptBatch]:
    window, halo = choose_window(backbone, None, None)
    device = next(backbone.parameters()).device
    return sweep_models(models, window=window, halo=halo, device=device)


def _layer_scale(model: ModelTokens) -> npt.NDArray[np.float64]:
    pairs = [(layer.mean, log_std(layer.std)) for layer in model.layers]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _join_layers(
    template: ModelTokens, tokens: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]
) -> Matrices:
    """Give normalised tokens ``(tokens, token_size)`` their layers' scale, and cut them apart."""
    first = template.table.first_tokens
    matrices = []
    for index, layer in enumerate(template.layers):
        own = tokens[first[index] : first[index + 1]]
        values = join_tokens(template.table.layout, own, layer.rows, layer.cols)
        mean, log_spread = scale[index]
        matrices.append((values * np.exp(log_spread) + mean).reshape(layer.rows, layer.cols))
    return matrices


def _require_layer_scale(backbone: Backbone) -> None:
    """Refuse a backbone whose normalisation keeps no scale that could be given back."""
    if backbone.config.normalization != "layer":
        raise ConfigError(
            "Generation needs a backbone that normalises by layer, this one does by "
            f"{backbone.config.normalization}; train one with normalization='layer'."
        )
