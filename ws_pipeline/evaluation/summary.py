"""Sentences computed from the numbers: what beat what, what did not, what is not known. No I/O.

A claim is "yes" only when the interval of the paired difference excludes zero on the good side,
"no" when it excludes zero on the bad side, and "undecided" otherwise. Nothing here is written by
hand per result, so a bad result reads as plainly as a good one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ws_pipeline.evaluation.alterations import PERMUTED
from ws_pipeline.evaluation.features import (
    BOOSTED,
    FAMILY,
    HYPER_PARAMETERS,
    L2,
    L2_ALIGNED,
    MEAN,
    RANDOM,
    STATISTICS,
    UNTRAINED,
)
from ws_pipeline.evaluation.labels import (
    LOWER_IS_BETTER,
    feature_label,
    format_interval,
    format_number,
    target_label,
)
from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX, SLICE_ALL, split_pair
from ws_pipeline.evaluation.robustness import PARENT

YES, NO, UNDECIDED, NOT_MEASURED = "yes", "no", "undecided", "not measured"

# On fewer held-out models than this, percentile intervals are known to be too narrow.
_FEW_MODELS = 30

_ASKED = {
    ("properties", "r2"): (
        MEAN,
        FAMILY,
        HYPER_PARAMETERS,
        STATISTICS,
        UNTRAINED,
        HYPER_PARAMETERS + BOOSTED,
        STATISTICS + BOOSTED,
    ),
    ("retrieval", "recall@1"): (RANDOM, STATISTICS, UNTRAINED),
    ("lineage", "edge_f1"): (UNTRAINED, L2),
    ("robustness", "recall@1"): (UNTRAINED, L2_ALIGNED),
    ("reconstruction", "relative_error"): (MEAN, UNTRAINED),
}
"""Comparisons that the summary speaks of: evaluation and metric to the controls that matter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One comparison with its verdict.

    Attributes:
        task: What was to be done: "predicting test accuracy".
        metric: Name of the metric.
        subject: The representation under test.
        control: What it is compared with.
        verdict: yes, no, undecided or not measured: does the subject beat the control?
        score: The subject's own score with its interval.
        difference: Subject minus control.
        interval: Of the paired difference; empty where there is none.
        num_models: Held-out models.
    """

    task: str
    metric: str
    subject: str
    control: str
    verdict: str
    score: str
    difference: str
    interval: str
    num_models: int


def summarize_findings(results: pl.DataFrame, *, recipe: str) -> list[Finding]:
    """Return the comparisons that matter of one recipe, in the table's order."""
    permuted = (pl.col("slice") == PERMUTED) & (pl.col("target") == PARENT)
    rows = results.filter(
        (pl.col("recipe") == recipe) & ((pl.col("slice") == SLICE_ALL) | permuted)
    )
    scores = {
        (row["evaluation"], row["target"], row["metric"], row["features"]): row
        for row in rows.iter_rows(named=True)
    }
    findings = []
    for (evaluation, target, name, features), row in scores.items():
        metric = name.removesuffix(DIFFERENCE_SUFFIX)
        subject, control = split_pair(features)
        if name == metric or control not in _ASKED.get((evaluation, metric), ()):
            continue
        if subject.partition("@")[2] != control.partition("@")[2]:
            continue  # trees meet trees, ridge meets ridge; the tables have the rest
        own = scores.get((evaluation, target, metric, subject), {})
        findings.append(
            Finding(
                task=_task(evaluation, target),
                metric=metric,
                subject=subject,
                control=control,
                verdict=verdict_of(
                    row["value"],
                    row["low"],
                    row["high"],
                    lower_is_better=metric in LOWER_IS_BETTER,
                ),
                score=f"{_value(own)} {_interval(own)}".rstrip(),
                difference=_signed(row),
                interval=_interval(row),
                num_models=row["num_models"],
            )
        )
    return findings


def summary_sentences(findings: Sequence[Finding]) -> list[str]:
    """Return one sentence per representation and control: where better, where worse, where open."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.subject, finding.control), []).append(finding)
    sentences = []
    for (subject, control), group in groups.items():
        parts = []
        for verdict, words in ((YES, "better at"), (NO, "worse at"), (UNDECIDED, "undecided on")):
            tasks = [f"{f.task} ({f.difference})" for f in group if f.verdict == verdict]
            if tasks:
                parts.append(f"{words} {_join_words(tasks)}")
        unmeasured = [f.task for f in group if f.verdict == NOT_MEASURED]
        if unmeasured:
            parts.append(f"not measured on {_join_words(unmeasured)}: too few held-out models")
        sentence = f"The {feature_label(subject)} against {control_label(control)}: "
        sentences.append(sentence + "; ".join(parts) + ".")
    return sentences


def verdict_of(
    value: float | None, low: float | None, high: float | None, *, lower_is_better: bool
) -> str:
    """Return the verdict on a difference: its interval decides, never its sign alone."""
    if value is None:
        return NOT_MEASURED
    if low is None or high is None:
        return UNDECIDED
    if lower_is_better:
        low, high = -high, -low
    if low > 0:
        return YES
    return NO if high < 0 else UNDECIDED


def control_label(features: str) -> str:
    """Return a control as the object of a sentence."""
    objects = {
        MEAN: "predicting the mean",
        RANDOM: "chance",
        UNTRAINED: "the untrained backbone",
        FAMILY: "the family's name",
        HYPER_PARAMETERS: "hyper-parameters alone",
    }
    return objects.get(features, feature_label(features))


def _value(row: Mapping[str, object]) -> str:
    """Return a row's value as text."""
    return format_number(_number(row.get("value")))


def _signed(row: Mapping[str, object]) -> str:
    """Return a difference with its sign."""
    value = _number(row.get("value"))
    return ("+" if value is not None and value > 0 else "") + format_number(value)


def _interval(row: Mapping[str, object]) -> str:
    """Return a row's interval as text."""
    return format_interval(_number(row.get("low")), _number(row.get("high")))


def _number(value: object) -> float | None:
    """Return a table's cell as a float or None."""
    return float(value) if isinstance(value, int | float) else None


def _join_words(words: Sequence[str]) -> str:
    """Return words with commas and a last "and"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _task(evaluation: str, target: str) -> str:
    """Return what was to be done."""
    if evaluation == "properties":
        return f"predicting {target_label(target)}"
    if evaluation == "robustness":
        return "finding the parent of a permuted fine-tune"
    if evaluation == "lineage":
        return "joining fine-tunes with their parents"
    if evaluation == "retrieval":
        return f"finding {target_label(target)}"
    return "reconstructing held-out weights"


def standing_limitations(results: pl.DataFrame, *, recipe: str) -> Iterator[str]:
    """Yield what a reader must keep in mind, from the numbers where they decide it."""
    rows = results.filter((pl.col("recipe") == recipe) & (pl.col("slice") == SLICE_ALL))
    yield (
        "Intervals are percentile bootstrap intervals over lineages of held-out models. They cover"
        " the choice of test models, not the training of the backbone: another training seed or"
        " another split may differ by more."
    )
    yield (
        "No correction for the number of comparisons: of twenty differences that are truly zero,"
        " one is expected to look decided at 95 %."
    )
    fewest = rows.filter(pl.col("value").is_not_null())["num_models"].min()
    if isinstance(fewest, int) and fewest < _FEW_MODELS:
        yield (
            f"Some scores rest on as few as {fewest} held-out models; percentile intervals are too"
            " narrow on so few."
        )
    unmeasured = (
        rows.filter(
            pl.col("value").is_null() & ~pl.col("metric").str.contains("kendall_tau", literal=True)
        )["target"]
        .unique()
        .sort()
    )
    if len(unmeasured):
        names = ", ".join(target_label(name) for name in unmeasured)
        yield f"Too few held-out models to measure: {names}."
    seeds = sorted(set(rows["seed"].to_list()))
    if len(seeds) <= 1:
        yield "One training seed: the spread between trainings is not known."
    else:
        yield (
            f"Findings and figures are of training seed {seeds[0]}; the table of recipes"
            f" shows means over {len(seeds)} seeds."
        )
