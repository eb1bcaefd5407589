"""Which probes a property evaluation fits, on which models, and what they predict. Pure; no I/O.

Per target: one fit over the training models of all families (slice ``all``), one per family
(``family_fit:X``), and one per grouping that is held out value by value (``held_out:X``): its
predictions of a test model come from a probe that saw no model of that model's value.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.backbone.embedding_blocks import END_SKETCHES, SPECTRA
from ws_pipeline.evaluation.boosting import fit_boosted_probe
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.features import (
    ATTENTION,
    BOOSTED,
    HYPER_PARAMETERS,
    HYPER_PARAMETERS_NO_EPOCH,
    LATENTS_ALONE,
    MEAN,
    SHAPES,
    STATISTICS,
    STATISTICS_SPECTRA,
    FeatureTable,
    is_control,
)
from ws_pipeline.evaluation.probes import BoolArray, FloatArray, Probe, fit_probe
from ws_pipeline.evaluation.results import SLICE_ALL, ResultContext
from ws_pipeline.evaluation.targets import EPOCH, FACTOR_PREFIX, CardTruth, factor_values

FAMILY_FIT_SLICE = "family_fit:"
HELD_OUT_SLICE = "held_out:"

MAX_GROUPS = 32
"""A grouping of more values than this names models rather than kinds of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """The corpus as arrays, and what all slices share. Arrays are ``(models,)``.

    Attributes:
        groups: Held-out grouping to each model's value; "" where it has none.
        layers: Representation to each model's layer vectors, ``(layers, features)``.
    """

    corpus: pl.DataFrame
    config: EvaluationConfig
    context: ResultContext
    truth: Mapping[str, FloatArray]
    lineages: NDArray[Any]
    families: NDArray[Any]
    splits: Mapping[str, BoolArray]
    groups: Mapping[str, NDArray[Any]]
    layers: Mapping[str, Sequence[FloatArray]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The probes of one target on one set of models."""

    target: str
    slice_name: str
    names: tuple[str, ...]
    usable: BoolArray
    probes: dict[str, Probe] = field(default_factory=dict)


def group_values(corpus: pl.DataFrame, truth: CardTruth, name: str) -> NDArray[Any]:
    """Return each model's value of ``family`` or a generating factor; "" where it has none."""
    if name == "family":
        return corpus["family"].to_numpy().astype(str)
    values = factor_values(corpus, truth.factors, name)
    numbers = [f"{value:g}" if value is not None else "" for value in values["number"]]
    return np.array([text or number for text, number in zip(values["text"], numbers, strict=True)])


def asked_tables(target: str, tables: Sequence[FeatureTable]) -> list[FeatureTable]:
    """Return the tables that do not hold the target itself."""
    hidden: tuple[str, ...] = ()
    if target == EPOCH:
        hidden = (HYPER_PARAMETERS,)
    if target.startswith(FACTOR_PREFIX):
        hidden = (HYPER_PARAMETERS, HYPER_PARAMETERS_NO_EPOCH)
    return [table for table in tables if table.name not in hidden]


def fit_pooled(population: Population, target: str, tables: Sequence[FeatureTable]) -> Fit:
    """Fit every probe over the models of all families."""
    everyone = np.ones(len(population.corpus), dtype=bool)
    tables = asked_tables(target, tables)
    fit = fit_ridge(population, target, SLICE_ALL, tables, everyone)
    boosted = [table for table in tables if _is_boosted(table.name)]
    attended = [table.name for table in tables if table.name in population.layers]
    config = population.config
    names = list(fit.names)
    if "boosted" in config.probes:
        names += [table.name + BOOSTED for table in boosted]
    if "attention" in config.probes:
        names += [name + ATTENTION for name in attended]
    fit = Fit(
        target=target,
        slice_name=SLICE_ALL,
        names=tuple(names),
        usable=fit.usable,
        probes=fit.probes,
    )
    if fit.probes:
        masks = {name: fit.usable & mask for name, mask in population.splits.items()}
        _fit_boosted(population, fit, boosted, masks)
        _fit_attention(population, fit, attended, masks)
    return fit


def fit_ridge(
    population: Population,
    target: str,
    slice_name: str,
    tables: Sequence[FeatureTable],
    members: BoolArray,
) -> Fit:
    """Fit one ridge probe per features on the members that have the target and all features."""
    truth = population.truth[target]
    tables = asked_tables(target, tables)
    usable = members & np.isfinite(truth)
    usable &= np.logical_and.reduce([table.available for table in tables])
    names = tuple(table.name for table in tables)
    fit = Fit(target=target, slice_name=slice_name, names=names, usable=usable)
    train = usable & population.splits["train"]
    if int(train.sum()) >= population.config.min_train_models:
        for table in tables:
            fit.probes[table.name] = _ridge(population, table, truth, usable)
    return fit


def fit_held_out(
    population: Population, target: str, name: str, tables: Sequence[FeatureTable], pooled: Fit
) -> Iterator[Fit]:
    """Yield the fit in which every test model's value of a grouping was never seen.

    Nothing where the grouping has one value or too many, nor for what is itself a factor.
    """
    if target == EPOCH or target.startswith(FACTOR_PREFIX):
        return
    groups = population.groups[name]
    usable = pooled.usable & (groups != "")
    values = np.unique(groups[usable & population.splits["test"]])
    if not 2 <= len(np.unique(groups[usable])) <= MAX_GROUPS or not len(values):
        return
    tables = [table for table in asked_tables(target, tables) if _is_held_out(table.name)]
    truth = population.truth[target]
    fit = Fit(
        target=target,
        slice_name=HELD_OUT_SLICE + name,
        names=tuple(table.name for table in tables),
        usable=usable,
    )
    for table in tables:
        parts = []
        for value in values:
            seen = usable & (groups != value)
            if int((seen & population.splits["train"]).sum()) < population.config.min_train_models:
                return
            parts.append((groups == value, _ridge(population, table, truth, seen)))
        prediction = np.full(len(truth), np.nan)
        for members, probe in parts:
            prediction[members] = probe.prediction[members]
        fit.probes[table.name] = Probe(
            prediction=prediction,
            regularization=float(np.median([probe.regularization for _, probe in parts])),
            num_features=max(probe.num_features for _, probe in parts),
            chosen_on=parts[0][1].chosen_on,
        )
    yield fit


def _ridge(
    population: Population, table: FeatureTable, truth: FloatArray, usable: BoolArray
) -> Probe:
    """Fit a ridge probe on the usable training models."""
    return fit_probe(
        table.values,
        truth,
        train=usable & population.splits["train"],
        val=usable & population.splits["val"],
        lineages=population.lineages.tolist(),
        config=population.config,
        num_first=table.num_first,
    )


def _is_boosted(name: str) -> bool:
    """Return whether trees read these features too: the strong controls and representations."""
    return name in {HYPER_PARAMETERS, STATISTICS} or (not is_control(name) and "+" not in name)


def _is_held_out(name: str) -> bool:
    """Return whether features are asked about values that were never seen: one probe each."""
    weak = {MEAN, SHAPES, SPECTRA, END_SKETCHES, STATISTICS_SPECTRA}
    return name not in weak and "+" not in name and not name.endswith(LATENTS_ALONE)


def _fit_boosted(
    population: Population,
    fit: Fit,
    tables: Sequence[FeatureTable],
    masks: Mapping[str, BoolArray],
) -> None:
    """Add the boosted probes."""
    for table in tables if "boosted" in population.config.probes else ():
        fit.probes[table.name + BOOSTED] = fit_boosted_probe(
            table.values,
            population.truth[fit.target],
            train=masks["train"],
            val=masks["val"],
            config=population.config,
        )


def _fit_attention(
    population: Population, fit: Fit, names: Sequence[str], masks: Mapping[str, BoolArray]
) -> None:
    """Add the attention probes; torch is imported only for them."""
    for name in names if "attention" in population.config.probes else ():
        from ws_pipeline.evaluation.attention_probe import fit_attention_probe

        rows = np.flatnonzero(fit.usable)
        probe = fit_attention_probe(
            [population.layers[name][row] for row in rows.tolist()],
            population.truth[fit.target][rows],
            train=masks["train"][rows],
            val=masks["val"][rows],
            config=population.config,
        )
        prediction = np.full(len(fit.usable), np.nan)
        prediction[rows] = probe.prediction
        fit.probes[name + ATTENTION] = Probe(
            prediction=prediction,
            regularization=probe.regularization,
            num_features=probe.num_features,
            chosen_on=probe.chosen_on,
        )
