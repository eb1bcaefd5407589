"""A code of a model's two ends that no order of hidden units changes. Pure; no I/O.

Inputs and outputs of a network are not exchangeable, its hidden units are. So the Gram matrix of
the first layer over its inputs, of the tables over their rows (words, positions) and of the last
layer over its outputs stay what they are under every permutation, and unlike singular values they
tell one model from another: a fine-tune is told from strangers without aligning it to each.
Each Gram matrix G of side g is sketched with fixed Gaussian vectors: (u_1' G v_1, u_2' G v_2, ..).

Source: random projections keep distances, Johnson & Lindenstrauss (1984); for the invariance of
products over an exchanged axis, e.g. Navon et al., arXiv 2301.12780. Ours: ends only, three kinds.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.errors import Reason
from ws_pipeline.evaluation.features import END_SKETCHES, FeatureTable
from ws_pipeline.evaluation.model_weights import LayerMatrix, ReadLayers

FloatArray = NDArray[np.float64]

SKETCH_SIZE = 128
NUM_KINDS = 3

TABLE_ROLES = frozenset({"embedding", "position_table", "class_token"})
MIN_SIDE = 4
"""A layer that is thinner is a norm's scale or a bias, not a map."""

MIN_WORDS = 8
"""Rows of a table of words; the first map of a network that has one reads hidden units."""

_TINY = 1e-30


def sketch_model(layers: Sequence[LayerMatrix]) -> FloatArray:
    """Return the sketches of tables, first and last map, one after the other; zeros where none.

    The number is ``NUM_KINDS * SKETCH_SIZE``. Every Gram matrix counts with norm 1, so that a
    large table does not outweigh the layers.
    """
    tables = [layer for layer in layers if layer.role in TABLE_ROLES]
    maps = [
        layer.values
        for layer in layers
        if layer.role not in TABLE_ROLES and min(layer.values.shape) >= MIN_SIDE
    ]
    reads_words = any(
        layer.role == "embedding" and len(layer.values) >= MIN_WORDS for layer in tables
    )
    nothing = np.zeros(SKETCH_SIZE)
    of_tables = sum((sketch_gram(layer.values) for layer in tables), start=nothing)
    first = sketch_gram(maps[0].T) if maps and not reads_words else nothing
    last = sketch_gram(maps[-1]) if maps else nothing
    return np.concatenate([of_tables, first, last])


def sketch_gram(matrix: FloatArray) -> FloatArray:
    """Return the sketch of ``M M'`` in units of its norm; an order of M's columns changes nothing.

    The Gram matrix itself is never formed: a vocabulary may have 100,000 rows.
    """
    rows, cols = matrix.shape
    generator = np.random.default_rng(rows)  # the same vectors for every model of that side
    left, right = generator.standard_normal((2, SKETCH_SIZE, rows))
    products = ((left @ matrix) * (right @ matrix)).sum(axis=1)
    gram = matrix @ matrix.T if rows <= cols else matrix.T @ matrix  # of the same norm
    return np.asarray(products / max(float(np.linalg.norm(gram)), _TINY) / SKETCH_SIZE**0.5)


def end_features(corpus: pl.DataFrame, read_layers: ReadLayers) -> FeatureTable:
    """Return the vectors of all models, in the corpus' order; one model is held at a time."""
    rows = corpus.select("shard_sha256", "layers").iter_rows(named=True)
    values = np.array([sketch_model(list(read_layers(row))) for row in rows])
    values = values.reshape(len(corpus), NUM_KINDS * SKETCH_SIZE)
    return FeatureTable(
        name=END_SKETCHES,
        values=values,
        available=np.asarray(np.isfinite(values).all(axis=1)),
        missing_reason=Reason.NO_STATISTICS,
    )
