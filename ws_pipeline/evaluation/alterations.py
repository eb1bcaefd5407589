"""Copies of a model that are still the same model, or nearly: what an embedding should not mind.

Pure; randomness is an argument. A random order of hidden units is not among them: it needs the
model's graph (:mod:`ws_pipeline.weights.symmetry`), and what it gives is passed through here as
``permuted``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ws_pipeline.weights.layer_matrix import LayerMatrix

FloatArray = NDArray[np.float64]
Alteration = Callable[[FloatArray, np.random.Generator], FloatArray]

PERMUTED = "permuted"

NOISE_SHARE = 0.01
LORA_RANK = 4
LORA_SHARE = 0.1
"""Norm of a merged adapter over the norm of the weights it is added to; a choice: large for a
fine-tune, whose change is a few per cent (docs/experiments.md)."""


def round_bfloat16(values: FloatArray, _: np.random.Generator) -> FloatArray:
    """Round to bfloat16."""
    return values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def round_float16(values: FloatArray, _: np.random.Generator) -> FloatArray:
    """Round to float16; what is beyond its range becomes its largest number."""
    largest = float(np.finfo(np.float16).max)
    return values.clip(-largest, largest).astype(np.float16).astype(np.float64)


def quantize_int8(values: FloatArray, _: np.random.Generator) -> FloatArray:
    """Round to 255 levels between minus and plus the largest magnitude of the layer."""
    step = float(np.abs(values).max(initial=0.0)) / 127 or 1.0
    return np.asarray(np.rint(values / step) * step)


def add_noise(values: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Add normal noise of `NOISE_SHARE` of the layer's root mean square."""
    size = float(np.sqrt(np.mean(values**2)))
    return np.asarray(values + NOISE_SHARE * size * generator.standard_normal(values.shape))


def merge_lora(values: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Add a random product of rank `LORA_RANK` of `LORA_SHARE` of the layer's norm.

    Layers that are no larger than the rank are left alone, as adapters leave biases and norms.
    """
    rows, cols = values.shape
    if min(rows, cols) <= LORA_RANK:
        return values
    factors = (
        generator.standard_normal((rows, LORA_RANK)),
        generator.standard_normal((LORA_RANK, cols)),
    )
    product = factors[0] @ factors[1]
    share = LORA_SHARE * np.linalg.norm(values) / np.linalg.norm(product)
    return np.asarray(values + share * product)


ALTERATIONS: Mapping[str, Alteration] = MappingProxyType(
    {
        "bfloat16": round_bfloat16,
        "float16": round_float16,
        "int8": quantize_int8,
        "noise": add_noise,
        "lora_merge": merge_lora,
    }
)


def alter_layers(
    layers: Sequence[LayerMatrix], name: str, generator: np.random.Generator
) -> list[LayerMatrix]:
    """Return altered copies of a model's layers."""
    change = ALTERATIONS[name]
    return [replace(layer, values=change(layer.values, generator)) for layer in layers]
