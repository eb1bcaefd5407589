"""A repo's weights as numpy arrays with their symmetry, and averages of weights. Reads repos.

Averages are taken in float64 and given back in the first model's dtypes; counters are the first
model's. Not here: evaluation (``interpolation``, ``soups``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ws_pipeline.errors import MissingInputError
from ws_pipeline.weights.checkpoint import CONFIG_NAME, read_config
from ws_pipeline.weights.symmetry.finding import find_symmetry
from ws_pipeline.weights.symmetry.groups import Symmetry

Weights = Mapping[str, NDArray[Any]]
"""Tensors by their published names."""


def read_arrays(repo: Path) -> dict[str, NDArray[Any]]:
    """Read a repo's tensors.

    Raises:
        MissingInputError: When the folder holds no weights.
    """
    path = repo / "model.safetensors"
    if not path.is_file():
        raise MissingInputError(f"{repo} must hold a model.safetensors, it does not.")
    return load_file(path)


def read_symmetry(repo: Path, weights: Weights) -> Symmetry:
    """Find what may be permuted in a repo's model."""
    config = read_config(repo / CONFIG_NAME)
    return find_symmetry({name: array.shape for name, array in weights.items()}, config)


def list_floating(weights: Weights) -> list[str]:
    """List the tensors of floating point, in order."""
    return [name for name in sorted(weights) if weights[name].dtype.kind == "f"]


def flatten_weights(weights: Weights) -> NDArray[np.float64]:
    """Return all floating-point numbers of a model as one vector ``(params,)``."""
    parts = [weights[name].ravel() for name in list_floating(weights)]
    return np.concatenate(parts, dtype=np.float64)


def average_weights(models: Sequence[Weights], shares: Sequence[float] = ()) -> Weights:
    """Average models of one shape.

    Args:
        models: At least one.
        shares: Of each model, summing to 1; even without them.
    """
    even = [1.0 / len(models)] * len(models)
    floating = set(list_floating(models[0]))
    averaged: dict[str, NDArray[Any]] = {}
    for name, array in models[0].items():
        if name not in floating:
            averaged[name] = array
            continue
        total = np.zeros(array.shape, dtype=np.float64)
        for model, share in zip(models, shares or even, strict=True):
            total += share * model[name].astype(np.float64)
        averaged[name] = total.astype(array.dtype)
    return averaged
