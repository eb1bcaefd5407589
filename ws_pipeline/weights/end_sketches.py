"""A code of a model's two ends that no order of hidden units changes. Pure; no I/O.

Inputs and outputs of a network are not exchangeable, its hidden units are. So the Gram matrix of
the first layer over its inputs, of the tables over their rows (words, positions) and of the last
layer over its outputs stay what they are under every permutation, and unlike singular values they
tell one model from another: a fine-tune is told from strangers without aligning it to each.
Each Gram matrix G of side g is sketched with fixed Gaussian vectors: (u_1' G v_1, u_2' G v_2, ..).

Source: random projections keep distances, Johnson & Lindenstrauss (1984); for the invariance of
products over an exchanged axis, e.g. Navon et al., arXiv 2301.12780. Ours: ends only, three kinds.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.weights.layer_matrix import LayerMatrix
from ws_pipeline.weights.role_rules import Role

FloatArray = NDArray[np.float64]

SKETCH_SIZE = 64
"""Numbers of one kind; 16 to 128 were tried (docs/experiments.md)."""

NUM_KINDS = 3

TABLE_ROLES = frozenset({Role.EMBEDDING, Role.POSITION_TABLE, Role.CLASS_TOKEN})

VECTOR_ROLES = frozenset(
    {
        Role.NORM_SCALE,
        Role.NORM_SHIFT,
        Role.BIAS,
        Role.BATCHNORM_MEAN,
        Role.BATCHNORM_VAR,
        Role.LAYER_SCALE,
        Role.TEMPERATURE,
        Role.WEIGHT_MAGNITUDE,
        Role.ACTIVATION_SLOPE,
    }
)
"""One number a unit and no map from inputs to outputs, whatever its partner bias makes of it."""

MIN_SIDE = 4
"""An unknown layer that is thinner is taken for a vector of that kind."""

MIN_WORDS = 8
"""Rows of a table of words; the first map of a network that has one reads hidden units."""

_BLOCK_ROWS = 8_192


def sketch_model(layers: Iterable[LayerMatrix]) -> FloatArray:
    """Return the sketches of tables, first and last map, one after the other; zeros where none.

    The number is ``NUM_KINDS * SKETCH_SIZE``. Every Gram matrix counts with norm 1, so that a
    large table does not outweigh the layers. Two layers are held at a time.
    """
    of_tables, first = np.zeros(SKETCH_SIZE), np.zeros(SKETCH_SIZE)
    last: FloatArray | None = None
    reads_words = False
    for layer in layers:
        if layer.role in TABLE_ROLES:
            of_tables += sketch_gram(layer.values)
            reads_words |= layer.role == Role.EMBEDDING and len(layer.values) >= MIN_WORDS
        elif is_map(layer):
            if last is None:
                first = sketch_gram(layer.values.T)
            last = layer.values
    of_last = np.zeros(SKETCH_SIZE) if last is None else sketch_gram(last)
    return np.concatenate([of_tables, np.zeros(SKETCH_SIZE) if reads_words else first, of_last])


def is_map(layer: LayerMatrix) -> bool:
    """Return whether a layer takes inputs to outputs; one with a single output does too."""
    if layer.role == Role.UNKNOWN:
        return bool(min(layer.values.shape) >= MIN_SIDE)
    return layer.role not in VECTOR_ROLES and bool(layer.values.shape[1] > 1)


def sketch_gram(matrix: FloatArray) -> FloatArray:
    """Return the sketch of ``M M'`` in units of its norm; an order of M's columns changes nothing.

    The Gram matrix itself is never formed: a vocabulary may have 100,000 rows.
    """
    rows, cols = matrix.shape
    largest = float(np.abs(matrix).max(initial=0.0))
    if largest == 0.0:
        return np.zeros(SKETCH_SIZE)
    matrix = matrix / largest
    generator = np.random.default_rng(rows)  # the same vectors for every model of that side
    left, right = np.zeros((2, SKETCH_SIZE, cols))
    for start in range(0, rows, _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS]
        draws = generator.standard_normal((2, SKETCH_SIZE, len(block)))
        left += draws[0] @ block
        right += draws[1] @ block
    gram = matrix @ matrix.T if rows <= cols else matrix.T @ matrix  # of the same norm
    products = (left * right).sum(axis=1)
    return np.asarray(products / float(np.linalg.norm(gram)) / SKETCH_SIZE**0.5)
