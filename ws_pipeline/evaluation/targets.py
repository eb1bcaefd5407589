"""Truth about models as their cards report it: metrics to predict and generating factors.

Cards are written by strangers. Sizes are bounded, numbers are finite and in range, and whatever
cannot be used becomes a null with a reason that is counted. Pure; no I/O.

Source: the model-index of a model card,
https://huggingface.co/docs/hub/model-cards#evaluation-results ; ``generating_factors`` is ours: a
flat mapping of scalars that says how a zoo model was made.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ws_pipeline.errors import Reason

MAX_CARD_CHARS = 65_536
"""The ledger keeps no longer card; whatever is longer did not come from it."""

MAX_ENTRIES = 64
"""Results of a model-index, metrics of a result and generating factors that are read at most."""

MAX_NAME_CHARS = 64
MAX_TEXT_CHARS = 128

MAX_MAGNITUDE = 1e12
"""Factors and metrics beyond this are no settings of a training run."""

# Fractions, not percentages: 93.5 as an accuracy is refused rather than guessed to be 0.935.
METRIC_BOUNDS: Mapping[str, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "train_accuracy": (0.0, 1.0),
    "generalization_gap": (-1.0, 1.0),
    "epoch": (0.0, 1e6),
}

# Outcomes of training: as factors they would tell the control what it has to predict.
OUTCOMES = frozenset(
    {"accuracy", "train_accuracy", "test_accuracy", "loss", "train_loss", "generalization_gap"}
)

ACCURACY = "accuracy"
EPOCH = "epoch"

FACTOR_PREFIX = "factor:"
"""Before the name of a generating factor that is to be predicted."""

FACTOR_SCHEMA = pl.Schema(
    {"hub_id": pl.String, "name": pl.String, "number": pl.Float64, "text": pl.String}
)
MISSING_SCHEMA = pl.Schema({"target": pl.String, "reason": pl.String, "num_models": pl.Int64})


@dataclass(frozen=True, kw_only=True, slots=True)
class CardTruth:
    """What the cards of a corpus say.

    Attributes:
        targets: ``hub_id`` and one nullable float column per target, in the corpus' order.
        factors: Long table (FACTOR_SCHEMA) of generating factors, number or text.
        missing: Models without a usable target, counted by target and reason (MISSING_SCHEMA).
    """

    targets: pl.DataFrame
    factors: pl.DataFrame
    missing: pl.DataFrame


def read_card_truth(corpus: pl.DataFrame, targets: Sequence[str]) -> CardTruth:
    """Return targets and generating factors of every model of a corpus.

    Args:
        corpus: Needs ``hub_id`` and ``card`` (JSON text, null where there is none).
        targets: Names of metrics; after `FACTOR_PREFIX`, of generating factors: numbers enter as
            log10 where all are positive, of texts the most frequent one is told from the rest.
    """
    columns: dict[str, list[float | None]] = {target: [] for target in targets}
    reasons: dict[tuple[str, str], int] = {}
    factors: list[tuple[str, str, float | None, str | None]] = []
    for hub_id, text in corpus.select("hub_id", "card").iter_rows():
        card = parse_card(text)
        metrics = read_metrics(card) if card is not None else {}
        own = read_factors(card or {}, metrics)
        for target in targets:
            if target.startswith(FACTOR_PREFIX):
                found = any(FACTOR_PREFIX + name == target for name, _, _ in own)
                value, reason = None, None if found else Reason.METRIC_NOT_REPORTED
            else:
                value, reason = _bounded_metric(metrics, target)
            if reason is not None:
                reason = Reason.CARD_INVALID if card is None else reason
                reasons[target, reason.value] = reasons.get((target, reason.value), 0) + 1
            columns[target].append(value)
        factors.extend((hub_id, *factor) for factor in own)
    factor_table = pl.DataFrame(factors, schema=FACTOR_SCHEMA, orient="row")
    for target in targets:
        if target.startswith(FACTOR_PREFIX):
            columns[target] = _factor_target(corpus, factor_table, target)
    missing = [(target, reason, count) for (target, reason), count in sorted(reasons.items())]
    return CardTruth(
        targets=pl.DataFrame(
            {"hub_id": corpus["hub_id"], **columns},
            schema={"hub_id": pl.String, **dict.fromkeys(targets, pl.Float64)},
        ),
        factors=factor_table,
        missing=pl.DataFrame(missing, schema=MISSING_SCHEMA, orient="row"),
    )


def parse_card(text: str | None) -> dict[str, Any] | None:
    """Return a card's mapping; None for what is not one."""
    if not text or len(text) > MAX_CARD_CHARS:
        return None
    try:
        card = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return card if isinstance(card, dict) else None


def read_metrics(card: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the metrics of a model-index by type; None where the value is not a finite number.

    The first result that reports a type counts: authors list their main data set first.
    """
    metrics: dict[str, float | None] = {}
    for model in _entries(card.get("model-index")):
        for result in _entries(model.get("results")):
            for metric in _entries(result.get("metrics")):
                name = metric.get("type")
                if isinstance(name, str) and len(name) <= MAX_NAME_CHARS:
                    metrics.setdefault(name, _finite_number(metric.get("value")))
    gap_parts = metrics.get("train_accuracy"), metrics.get("accuracy")
    if "generalization_gap" not in metrics and None not in gap_parts:
        metrics["generalization_gap"] = gap_parts[0] - gap_parts[1]  # type: ignore[operator]
    return metrics


def read_factors(
    card: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> list[tuple[str, float | None, str | None]]:
    """Return ``(name, number, text)`` of each generating factor; the epoch is one of them.

    Outcomes of training (accuracy, loss, ...) are left out, and so is what is no scalar.
    """
    raw = card.get("generating_factors")
    raw = raw if isinstance(raw, dict) else {}
    factors: dict[str, tuple[float | None, str | None]] = {}
    for name, value in list(raw.items())[:MAX_ENTRIES]:
        if len(name) > MAX_NAME_CHARS or name in OUTCOMES:
            continue
        number = _finite_number(value)
        if number is not None:
            factors[name] = (number, None)
        elif isinstance(value, str | bool):
            factors[name] = (None, str(value)[:MAX_TEXT_CHARS])
    epoch = metrics.get(EPOCH)
    if EPOCH not in factors and epoch is not None:
        factors[EPOCH] = (epoch, None)
    return [(name, number, text) for name, (number, text) in factors.items()]


def read_dataset(text: str | None) -> str:
    """Return the data set of a card: its generating factor, else the first of ``datasets``."""
    card = parse_card(text) or {}
    factors = card.get("generating_factors")
    listed = card.get("datasets")
    name = factors.get("dataset") if isinstance(factors, dict) else None
    if name is None and isinstance(listed, list) and listed:
        name = listed[0]
    return name[:MAX_TEXT_CHARS] if isinstance(name, str) else ""


def factor_values(corpus: pl.DataFrame, factors: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return ``number`` and ``text`` of one factor, in the corpus' order, null where unknown."""
    own = factors.filter(pl.col("name") == name).unique("hub_id", keep="first")
    return (
        corpus.select("hub_id")
        .join(own, on="hub_id", how="left", maintain_order="left")
        .select("number", "text")
    )


def _factor_target(corpus: pl.DataFrame, factors: pl.DataFrame, target: str) -> list[float | None]:
    """Return a factor as numbers."""
    values = factor_values(corpus, factors, target.removeprefix(FACTOR_PREFIX))
    texts = values["text"].drop_nulls()
    if len(texts):
        frequent = texts.value_counts().sort(["count", "text"], descending=[True, False])["text"][0]
        told: list[float | None] = (values["text"] == frequent).cast(pl.Float64).to_list()
        return told
    numbers = values["number"]
    if len(numbers.drop_nulls()) and (numbers.drop_nulls() > 0).all():
        numbers = numbers.log10()
    found: list[float | None] = numbers.to_list()
    return found


def _bounded_metric(
    metrics: Mapping[str, float | None], target: str
) -> tuple[float | None, Reason | None]:
    """Return the value of a target, or why it has none."""
    if target not in metrics:
        return None, Reason.METRIC_NOT_REPORTED
    value = metrics[target]
    if value is None:
        return None, Reason.METRIC_NOT_A_NUMBER
    low, high = METRIC_BOUNDS.get(target, (-MAX_MAGNITUDE, MAX_MAGNITUDE))
    if not low <= value <= high:
        return None, Reason.METRIC_OUT_OF_BOUNDS
    return value, None


def _entries(value: object) -> list[dict[str, Any]]:
    """Return the mappings of a list, MAX_ENTRIES at most."""
    if not isinstance(value, list):
        return []
    return [entry for entry in value[:MAX_ENTRIES] if isinstance(entry, dict)]


def _finite_number(value: object) -> float | None:
    """Return a finite float within MAX_MAGNITUDE, or None. Booleans and text are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > MAX_MAGNITUDE:
        return None  # an integer of thousands of digits does not convert
    number = float(value)
    return number if math.isfinite(number) and abs(number) <= MAX_MAGNITUDE else None
