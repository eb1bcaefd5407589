"""Fingerprints of models: which hold the same weights, nearly the same, some of the same. No I/O.

What it is: the statistics of each layer that ``weights/layers`` keeps anyway, put beside each
other; no weight is read again. They do not depend on names, file format, dtype, the order of layers
or of the numbers in a layer, so a port to another library and a permuted copy are found, which
equal files, tensors or shards do not tell. What it is not: who is the copy of whom (age decides,
in ``corpus_rules``), nor a comparison number by number.

Why it works: with d the root mean square of the difference of two layers, hypot(mean - mean', std -
std') <= d, so weights that are near have moments that are. Quantiles tell apart what only happens
to have the same moments. benchmarks/near_duplicates.py measures where copies end and others begin.
"""

import hashlib
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log

import numpy as np
import numpy.typing as npt
import polars as pl

from ws_pipeline.weights.plan import Treatment
from ws_pipeline.weights.role_rules import Role

FloatArray = npt.NDArray[np.float64]

MOMENTS = ("mean", "std")
QUANTILES = ("w_q01", "w_q25", "w_q50", "w_q75", "w_q99")
EXTREMES = ("w_min", "w_max")
COMPARED = (*MOMENTS, *QUANTILES, *EXTREMES)

MOMENT_STEPS = 1e7
"""Moments of a layer are equal when they are to this many steps of its root mean square. Summing
the same float32 numbers in another order moved none by more than 1e-15 of it."""

MIN_PROOF_VALUES = 64
"""Layers of fewer numbers prove no kinship: a norm's scale may come out alike."""

MIN_PROOF_LEVELS = 5
"""Different values among the seven order statistics; a mask or a constant has fewer."""

_FIXED_ROLES = (str(Role.POSITION_TABLE), str(Role.RELATIVE_POSITION))
"""Tables of sines are alike in models that have nothing to do with each other."""

NUM_PLACES = 4
"""Layers whose sizes are looked at before two models are compared in full: of 10,000 models of one
architecture, with one layer the corpus took 25 CPU-seconds, with four 7."""

Place = tuple[float, ...]

_SMALLEST = 1e-300


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What is compared of one model: its tokenised layers by shape, then in the plan's order.

    Attributes:
        shapes: ``(rows, cols)`` of each layer, bias column included.
        values: COMPARED of each layer, ``(layer, statistic)``.
        is_fixed: Of each layer: its role says that nothing was learned in it, ``(layer,)``.
    """

    shapes: tuple[tuple[int, int], ...]
    values: FloatArray
    is_fixed: npt.NDArray[np.bool_]

    @cached_property
    def sizes(self) -> FloatArray:
        """Root mean square of each layer, ``(layer,)``."""
        sizes: FloatArray = np.hypot(self.values[:, 0], self.values[:, 1])
        return sizes

    @cached_property
    def layer_keys(self) -> tuple[bytes, ...]:
        """One key per layer: equal for the same numbers in any order."""
        unit = np.maximum(self.sizes, _SMALLEST)[:, None]
        moments = np.rint(self.values[:, : len(MOMENTS)] / unit * MOMENT_STEPS)
        rest = np.hstack([self.sizes[:, None], self.values[:, len(MOMENTS) :]]).astype(np.float32)
        keys = np.hstack([np.array(self.shapes, dtype=np.float64), moments, rest]) + 0.0
        return tuple(row.tobytes() for row in keys)

    @cached_property
    def key(self) -> str:
        """Of the whole model: equal for the same layers in any order."""
        return hashlib.sha256(b"".join(sorted(self.layer_keys))).hexdigest()

    @cached_property
    def proofs(self) -> dict[bytes, int]:
        """{key of a layer that two models do not share by chance: its numbers}."""
        levels = np.sort(self.values[:, len(MOMENTS) :], axis=1)
        num_levels = 1 + (np.diff(levels, axis=1) > 0).sum(axis=1)
        sizes = np.prod(np.array(self.shapes, dtype=np.int64), axis=1)
        good = ~self.is_fixed & (num_levels >= MIN_PROOF_LEVELS) & (sizes >= MIN_PROOF_VALUES)
        return {self.layer_keys[i]: int(sizes[i]) for i in np.flatnonzero(good)}

    @property
    def is_constant(self) -> bool:
        """Whether every layer holds one number, over and over."""
        return bool((self.values[:, COMPARED.index("std")] == 0.0).all())


def read_fingerprints(layers: pl.DataFrame) -> dict[str, Fingerprint]:
    """Return {hub_id: fingerprint} of the accepted models of ``weights/layers`` tables.

    Args:
        layers: ``hub_id``, ``accepted`` and ``layers`` of all families.
    """
    rows = (
        layers.lazy()
        .filter("accepted")
        .unique("hub_id", keep="first", maintain_order=True)
        .select("hub_id", pl.col("layers").alias("layer"))
        .explode("layer")
        .drop_nulls("layer")
        .unnest("layer")
        .filter(pl.col("treatment") == str(Treatment.TOKENISED))
        .select(
            "hub_id",
            "rows",
            (pl.col("cols") + (pl.col("bias_name") != "")).alias("cols"),
            "index",
            pl.col("role").is_in(_FIXED_ROLES).alias("is_fixed"),
            *(pl.col(name).fill_null(0.0) for name in COMPARED),
        )
        .sort("hub_id", "rows", "cols", "index")
        .collect()
    )
    return {
        str(hub_id): Fingerprint(
            shapes=tuple(part.select("rows", "cols").iter_rows()),
            values=part.select(COMPARED).to_numpy().astype(np.float64),
            is_fixed=part["is_fixed"].to_numpy(),
        )
        for (hub_id,), part in rows.group_by("hub_id", maintain_order=True)
    }


def measure_distance(left: Fingerprint, right: Fingerprint) -> float:
    """Return how far two models of the same shapes are from each other, at their worst layer.

    In units of a layer's root mean square: the larger of the distance of the moments, which is a
    lower bound of that of the weights, and of the largest shift of a quantile, relative to the
    quantile where that is larger than the unit. Minimum and maximum do not count: one weight.
    """
    unit = np.maximum(np.maximum(left.sizes, right.sizes), _SMALLEST)
    difference = np.abs(left.values - right.values)
    first, last = len(MOMENTS), len(MOMENTS) + len(QUANTILES)
    moments = np.hypot(difference[:, 0], difference[:, 1]) / unit
    reach = np.maximum(np.abs(left.values[:, first:last]), unit[:, None])
    quantiles = (difference[:, first:last] / reach).max(axis=1)
    return float(np.maximum(moments, quantiles).max(initial=0.0))


@dataclass(kw_only=True, slots=True)
class NearIndex:
    """Models by shape and by the sizes of their largest layers, to find those that are near.

    Args:
        distance: What counts as near, in units of :func:`measure_distance`; under 1.
    """

    distance: float
    _blocks: dict[tuple[tuple[int, int], ...], list[tuple[Place, str]]] = field(
        default_factory=dict
    )
    _models: dict[str, Fingerprint] = field(default_factory=dict)

    def add(self, hub_id: str, model: Fingerprint) -> None:
        """Let a model be found."""
        insort(self._blocks.setdefault(model.shapes, []), (_place(model), hub_id))
        self._models[hub_id] = model

    def find(self, model: Fingerprint) -> list[tuple[float, str]]:
        """Return (distance, hub_id) of the models that are near, nearest first."""
        block = self._blocks.get(model.shapes, [])
        # |size - size'| <= distance * the larger: as far as the logarithms can be apart.
        reach = -log(1.0 - self.distance) + 1e-12
        place = _place(model)
        low = bisect_left(block, ((place[0] - reach,), ""))
        high = bisect_right(block, ((place[0] + reach, inf), ""))
        candidates = (
            hub_id
            for other, hub_id in block[low:high]
            if all(abs(one - two) <= reach for one, two in zip(place, other, strict=True))
        )
        found = ((measure_distance(model, self._models[name]), name) for name in candidates)
        return sorted(pair for pair in found if pair[0] <= self.distance)


def _place(model: Fingerprint) -> Place:
    """Return the log sizes of the model's largest layers."""
    order = np.argsort([-rows * cols for rows, cols in model.shapes], kind="stable")
    sizes = np.maximum(model.sizes[order[:NUM_PLACES]], _SMALLEST)
    return tuple(np.log(sizes).tolist())
