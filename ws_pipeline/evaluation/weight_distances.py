"""How far models lie apart by their weights: L2, cosine, singular values. Pure; no I/O.

The baselines of lineage recovery. Two models are compared over the layers that both have, by name
and shape, when these are at least half of the smaller one: a fine-tune's new head does not hide its
parent. Sums are kept per pair and layer by layer, so no model is ever held twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.evaluation.features import COSINE, L2, SINGULAR_VALUES
from ws_pipeline.evaluation.model_weights import ReadLayers
from ws_pipeline.weights.layer_matrix import LayerMatrix
from ws_pipeline.weights.spectra import singular_values

FloatArray = NDArray[np.float64]

WEIGHT_DISTANCES = (L2, COSINE, SINGULAR_VALUES)

MIN_SHARED = 0.5
"""Of the smaller model's weights."""

MAX_VALUES = 256_000_000
"""Weights of one family that are held at a time, 2 GB; a larger family is not compared."""

LayerView = Callable[[LayerMatrix], FloatArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSums:
    """Sums over shared layers, ``(models, models)`` each; [i, j]: of i over what both have.

    Attributes:
        dot: Inner products.
        square: Squared norms of the first over the shared layers.
        shared: Weights shared.
        total: Weights of each model, ``(models,)``.
    """

    dot: FloatArray
    square: FloatArray
    shared: FloatArray
    total: FloatArray

    def comparable(self) -> NDArray[np.bool_]:
        """Return who shares enough with whom; nobody with itself."""
        smaller = np.minimum(self.total[:, None], self.total[None, :])
        enough = self.shared >= MIN_SHARED * np.maximum(smaller, 1.0)
        np.fill_diagonal(enough, val=False)
        return np.asarray(enough & (self.shared > 0))

    def l2(self) -> FloatArray:
        """Return squared distance over the sum of squared norms, in [0, 2]; inf if not comparable.

        Relative, so that pairs that share much and pairs that share little can be ranked together.
        """
        square = self.square + self.square.T
        gap = np.maximum(square - 2.0 * self.dot, 0.0) / np.where(square > 0, square, 1.0)
        return np.where(self.comparable(), gap, np.inf)

    def cosine(self) -> FloatArray:
        """Return one minus the cosine, in [0, 2]; inf if not comparable."""
        norms = np.sqrt(self.square * self.square.T)
        return np.where(self.comparable(), 1.0 - self.dot / np.where(norms > 0, norms, 1.0), np.inf)


def layer_spectrum(layer: LayerMatrix) -> FloatArray:
    """Return a layer's singular values, largest first: what no permutation of units changes."""
    return singular_values(layer.values)


def plain_weights(layer: LayerMatrix) -> FloatArray:
    """Return a layer's weights as they stand."""
    return layer.values.ravel()


def sum_pairs(models: Sequence[Sequence[LayerMatrix]], view: LayerView) -> PairSums:
    """Return the sums of all pairs of models.

    Args:
        models: Layers of each.
        view: What of a layer is compared.
    """
    number = len(models)
    dot, square, shared = (np.zeros((number, number)) for _ in range(3))
    holders: dict[tuple[str, tuple[int, ...]], list[tuple[int, LayerMatrix]]] = {}
    for index, layers in enumerate(models):
        for layer in layers:
            holders.setdefault((layer.name, layer.values.shape), []).append((index, layer))
    for (_, shape), group in holders.items():
        rows = np.array([index for index, _ in group])
        vectors = np.array([view(layer) for _, layer in group])
        gram, at = vectors @ vectors.T, np.ix_(rows, rows)
        dot[at] += gram
        square[at] += np.diag(gram)[:, None]
        shared[at] += float(np.prod(shape))
    total = np.array([sum(float(layer.values.size) for layer in layers) for layers in models])
    return PairSums(dot=dot, square=square, shared=shared, total=total)


def measure_distances(models: Sequence[Sequence[LayerMatrix]]) -> dict[str, FloatArray]:
    """Return every distance of `WEIGHT_DISTANCES`, ``(models, models)``."""
    weights = sum_pairs(models, plain_weights)
    spectra = sum_pairs(models, layer_spectrum)
    return {L2: weights.l2(), COSINE: weights.cosine(), SINGULAR_VALUES: spectra.l2()}


def family_distances(
    corpus: pl.DataFrame, read_layers: ReadLayers
) -> Iterator[tuple[str, NDArray[np.bool_], Mapping[str, FloatArray] | None]]:
    """Yield family, its members and their distances; None for a family beyond `MAX_VALUES`."""
    families = corpus["family"].to_numpy().astype(str)
    for family in np.unique(families):
        members = families == family
        part = corpus.filter(pl.Series(members))
        if int(part["num_values"].sum()) > MAX_VALUES:
            yield str(family), members, None
            continue
        rows = part.select("shard_sha256", "layers").iter_rows(named=True)
        yield str(family), members, measure_distances([list(read_layers(row)) for row in rows])
