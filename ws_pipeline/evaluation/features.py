"""Design matrices: what a probe or a search may know of a model. Pure; no I/O.

Every builder returns raw columns in the corpus' order, NaN where a model has no value; scaling and
imputing are the probe's business and see training models only. The layer statistics s(W) have their
own module, :mod:`ws_pipeline.evaluation.statistics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.backbone.embedding_blocks import (
    EMBEDDING_SIZE,
    END_SKETCHES,
    LATENTS,
    SPECTRA,
    split_blocks,
)
from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.evaluation.probes import standardize
from ws_pipeline.evaluation.targets import EPOCH

MEAN = "mean"
FAMILY = "family"
SHAPES = "shapes"
HYPER_PARAMETERS = "hyper_parameters"
HYPER_PARAMETERS_NO_EPOCH = "hyper_parameters_no_epoch"
STATISTICS = "statistics"
STATISTICS_SPECTRA = "statistics_spectra"
LATENTS_ALONE = "_latents"
"""After the name of a representation: the block of its embedding that the backbone decides."""

FLAT_WEIGHTS = "weights"
UNTRAINED = "untrained"
RANDOM = "random"
L2, COSINE, SINGULAR_VALUES, L2_ALIGNED = "l2", "cosine", "singular_values", "l2_aligned"
BOOSTED = "@boosted"
ATTENTION = "@attention"
"""Suffixes of features: read by another probe than ridge."""

FloatArray = NDArray[np.float64]

CONTROLS = (
    RANDOM,
    MEAN,
    FAMILY,
    SHAPES,
    HYPER_PARAMETERS_NO_EPOCH,
    HYPER_PARAMETERS,
    SPECTRA,
    STATISTICS,
    STATISTICS_SPECTRA,
    FLAT_WEIGHTS,
    END_SKETCHES,
    UNTRAINED + LATENTS_ALONE,
    UNTRAINED,
    HYPER_PARAMETERS + BOOSTED,
    STATISTICS + BOOSTED,
    L2,
    COSINE,
    SINGULAR_VALUES,
    L2_ALIGNED,
)
"""Controls beside every score of a representation, weakest first."""

# A factor with more values than this says which model it is, not how it was made.
MAX_CATEGORIES = 32

MAX_EMBEDDING_SIZE = 65_536


def is_plain(name: str) -> bool:
    """Return whether features are read alone and by ridge."""
    return "+" not in name and "@" not in name


def is_control(name: str) -> bool:
    """Return whether a score stands beside others: a control, or one block of an embedding."""
    return name in CONTROLS or name.endswith(LATENTS_ALONE)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureTable:
    """Columns that describe models.

    Attributes:
        name: Entry of the result table's ``features`` column.
        values: Raw features, ``(models, features)``; NaN where a model lacks one.
        available: Models that have the features at all, ``(models,)``.
        missing_reason: Why the others have not.
        num_first: Columns of the first of two blocks that a probe weighs apart; 0 for one block.
        is_scaled: Whether the columns have one scale, so that distances are taken as they are.
    """

    name: str
    values: NDArray[np.float64]
    available: NDArray[np.bool_]
    missing_reason: Reason | None = None
    num_first: int = 0
    is_scaled: bool = False


def mean_features(num_models: int) -> FeatureTable:
    """Return no features: a probe on them predicts the training mean."""
    return _always(MEAN, np.zeros((num_models, 0)))


def family_features(corpus: pl.DataFrame) -> FeatureTable:
    """Return the family, one-hot."""
    return _always(FAMILY, one_hot(corpus["family"]))


def shape_features(corpus: pl.DataFrame) -> FeatureTable:
    """Return what the header alone tells: family, log of parameters and, if known, layers."""
    columns = [one_hot(corpus["family"]), _log_count(corpus["num_params"])]
    if "layers" in corpus.columns:
        columns.append(_log_count(corpus["layers"].list.len()))
    return _always(SHAPES, np.hstack(columns))


def hyper_parameter_features(
    corpus: pl.DataFrame, factors: pl.DataFrame, *, with_epoch: bool = True
) -> FeatureTable:
    """Return family, size and every generating factor: all that is known without the weights.

    Numbers enter as they are and, where all are positive, as log10; texts enter one-hot; that a
    model lacks a factor is an indicator. A strong control on purpose: grids are spanned by it.
    """
    columns = [shape_features(corpus).values]
    for (name,), group in factors.group_by("name", maintain_order=True):
        if name == EPOCH and not with_epoch:
            continue
        joined = corpus.select("hub_id").join(
            group.unique("hub_id", keep="first"), on="hub_id", how="left", maintain_order="left"
        )
        columns.extend(_factor_columns(joined))
    name = HYPER_PARAMETERS if with_epoch else HYPER_PARAMETERS_NO_EPOCH
    return _always(name, np.hstack(columns))


def embedding_features(name: str, corpus: pl.DataFrame, embeddings: pl.DataFrame) -> FeatureTable:
    """Return embeddings in the corpus' order.

    A model that the frame lacks, or whose vector is not finite, is not available.

    Raises:
        RefusedError: Vectors of several sizes: they come from different backbones.
    """
    found = embeddings.unique("hub_id", keep="first").select("hub_id", "embedding")
    joined = corpus.select("hub_id").join(found, on="hub_id", how="left", maintain_order="left")
    vectors = joined["embedding"].to_list()
    sizes = {len(vector) for vector in vectors if vector is not None}
    if len(sizes) > 1 or (sizes and not 0 < max(sizes) <= MAX_EMBEDDING_SIZE):
        raise RefusedError(
            f"embeddings {name!r} must be vectors of one size up to {MAX_EMBEDDING_SIZE}, got sizes"
            f" {sorted(sizes)[:5]}; embed all models with one backbone",
            reason=Reason.INVALID_CONFIG,
        )
    values = np.full((len(vectors), max(sizes, default=0)), np.nan)
    for index, vector in enumerate(vectors):
        if vector is not None:
            values[index] = np.asarray(vector, dtype=np.float64)
    available = np.isfinite(values).all(axis=1) & np.array([v is not None for v in vectors], bool)
    return FeatureTable(
        name=name,
        values=values,
        available=available,
        missing_reason=Reason.NO_EMBEDDING,
        is_scaled=True,
    )


def embedding_tables(
    corpus: pl.DataFrame, embeddings: Mapping[str, pl.DataFrame]
) -> tuple[FeatureTable, ...]:
    """Return every embedding whole and block by block, controls first."""
    ordered = sorted(embeddings, key=lambda name: name != UNTRAINED)
    wholes = {name: embedding_features(name, corpus, embeddings[name]) for name in ordered}
    vectors = name_blocks({name: whole.values for name, whole in wholes.items()})
    available = np.logical_and.reduce([whole.available for whole in wholes.values()])
    return tuple(
        wholes[name]
        if name in wholes
        else replace(wholes[ordered[0]], name=name, values=values, available=available)
        for name, values in vectors.items()
    )


def comparable_vectors(
    table: FeatureTable, values: FloatArray, reference: NDArray[np.bool_]
) -> FloatArray:
    """Return vectors whose distances count.

    Args:
        table: Says whether they have one scale.
        values: Of the table's columns, ``(models, features)``; what is missing becomes 0.
        reference: Over which models the others are standardised, ``(models,)``.
    """
    return np.nan_to_num(values) if table.is_scaled else standardize(values, reference)


def name_blocks(embeddings: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return every representation's vectors by block and whole, the wholes last.

    Spectra and end sketches do not depend on the backbone and come once, latents with each. Vectors
    of another size than ``EMBEDDING_SIZE`` have no blocks.
    """
    weights: dict[str, FloatArray] = {}
    latents: dict[str, FloatArray] = {}
    for name, vectors in embeddings.items():
        if vectors.shape[-1] == EMBEDDING_SIZE:
            blocks = split_blocks(vectors)
            latents[name + LATENTS_ALONE] = blocks.pop(LATENTS)
            weights |= blocks
    return {**weights, **latents, **embeddings}


def layer_vectors(corpus: pl.DataFrame, embeddings: pl.DataFrame) -> list[NDArray[np.float64]]:
    """Return each model's layer vectors ``(layers, features)`` in the corpus' order.

    One layer of zeros where the frame (hub_id, layers with a field ``embedding``) has none.
    """
    found = embeddings.unique("hub_id", keep="first").select("hub_id", "layers")
    joined = corpus.select("hub_id").join(found, on="hub_id", how="left", maintain_order="left")
    tables = [
        np.array([layer["embedding"] for layer in layers or ()], dtype=np.float64)
        for layers in joined["layers"].to_list()
    ]
    size = max((table.shape[1] for table in tables if len(table)), default=1)
    return [table if len(table) else np.zeros((1, size)) for table in tables]


def join_features(
    first: FeatureTable, second: FeatureTable, *, name: str | None = None
) -> FeatureTable:
    """Return the columns of two tables side by side, named ``first+second``.

    Under a name of their own they are two blocks that a probe weighs apart.
    """
    return FeatureTable(
        name=name or f"{first.name}+{second.name}",
        values=np.hstack([first.values, second.values]),
        available=first.available & second.available,
        num_first=0 if name is None else first.values.shape[1],
        missing_reason=second.missing_reason,
    )


def one_hot(values: pl.Series) -> NDArray[np.float64]:
    """Return one column per value, the MAX_CATEGORIES most frequent; nulls are all zero."""
    counts = (
        values.drop_nulls()
        .value_counts(sort=True)
        .sort(["count", values.name], descending=[True, False])
    )
    categories: Sequence[str] = counts[values.name].head(MAX_CATEGORIES).to_list()
    columns = [(values == category).fill_null(value=False).to_numpy() for category in categories]
    return np.array(columns, dtype=np.float64).reshape(len(categories), len(values)).T


def _factor_columns(joined: pl.DataFrame) -> list[NDArray[np.float64]]:
    """Return the columns of one generating factor: number, log10, categories, absence."""
    numbers = joined["number"].to_numpy().astype(np.float64)
    columns: list[NDArray[np.float64]] = []
    known = numbers[np.isfinite(numbers)]
    if len(known):
        columns.append(numbers[:, None])
        if known.min() > 0:
            columns.append(np.log10(numbers)[:, None])
    if joined["text"].null_count() < len(joined):
        columns.append(one_hot(joined["text"]))
    absent = (joined["number"].is_null() & joined["text"].is_null()).to_numpy()
    columns.append(absent.astype(np.float64)[:, None])
    return columns


def _log_count(values: pl.Series) -> NDArray[np.float64]:
    """Return log10(1 + count) as a column."""
    return np.log10(1.0 + values.cast(pl.Float64).to_numpy())[:, None]


def _always(name: str, values: NDArray[np.float64]) -> FeatureTable:
    """Return a table that every model has."""
    return FeatureTable(name=name, values=values, available=np.ones(len(values), dtype=bool))
