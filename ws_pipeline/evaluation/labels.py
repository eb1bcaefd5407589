"""What names of the result table are called in front of people, and how numbers are set. No I/O."""

import math

from ws_pipeline.backbone.embedding_blocks import END_SKETCHES, SPECTRA
from ws_pipeline.evaluation.features import (
    ATTENTION,
    BOOSTED,
    COSINE,
    FAMILY,
    FLAT_WEIGHTS,
    HYPER_PARAMETERS,
    HYPER_PARAMETERS_NO_EPOCH,
    L2,
    L2_ALIGNED,
    LATENTS_ALONE,
    MEAN,
    RANDOM,
    SHAPES,
    SINGULAR_VALUES,
    STATISTICS,
    STATISTICS_SPECTRA,
    UNTRAINED,
)
from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX
from ws_pipeline.evaluation.targets import FACTOR_PREFIX

FEATURE_LABELS = {
    MEAN: "mean",
    RANDOM: "chance",
    FAMILY: "family name only",
    SHAPES: "shapes only",
    HYPER_PARAMETERS_NO_EPOCH: "hyper-parameters, no epoch",
    HYPER_PARAMETERS: "hyper-parameters",
    SPECTRA: "spectra only",
    STATISTICS: "s(W)",
    STATISTICS_SPECTRA: "s(W) + spectra",
    FLAT_WEIGHTS: "flat weights",
    END_SKETCHES: "sketches of both ends",
    L2: "L2 of weights",
    COSINE: "cosine of weights",
    SINGULAR_VALUES: "singular values",
    L2_ALIGNED: "L2 after alignment",
    "weight_norm": "norm of weights",
    UNTRAINED: "untrained backbone",
    "backbone": "backbone",
    UNTRAINED + LATENTS_ALONE: "untrained latents only",
    "backbone" + LATENTS_ALONE: "trained latents only",
}

PROBE_LABELS = {BOOSTED: ", boosted trees", ATTENTION: ", attention over layers"}

TARGET_LABELS = {
    "accuracy": "test accuracy",
    "generalization_gap": "generalisation gap",
    "parent": "its parent",
    "child": "a child",
    "lineage": "a relative of its lineage",
    "family": "a member of its family",
    "dataset": "a model of the same data set",
    "lineage_in_family": "a relative among its own family",
    "edges": "lineage edges",
    "weights": "weights",
}

SLICE_LABELS = {
    "good": "the better half",
    "held_out:family": "a family never seen",
    "held_out:dataset": "a data set never seen",
    "held_out:learning_rate": "a learning rate never seen",
    "permuted": "hidden units permuted",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "int8": "int8, one scale a layer",
    "noise": "noise of 1 %",
    "lora_merge": "merged adapter of rank 4",
}

METRIC_LABELS = {
    "r2": "R²",
    "kendall_tau": "Kendall's τ",
    "relative_error": "relative error",
    "map": "mAP",
    "edge_f1": "F1 over edges",
    "direction": "share of directions",
    "drift": "drift",
}

LOWER_IS_BETTER = frozenset({"relative_error"})

NOT_MEASURED_TEXT = "–"
_MINUS = "\u2212"


def feature_label(name: str) -> str:
    """Return the label of a representation or control; joined ones with a plus."""
    name, at, probe = name.partition("@")
    label = " + ".join(FEATURE_LABELS.get(part, part) for part in name.split("+"))
    return label + PROBE_LABELS.get(at + probe, at + probe)


def target_label(name: str) -> str:
    """Return the label of a target."""
    return TARGET_LABELS.get(name, name.removeprefix(FACTOR_PREFIX).replace("_", " "))


def slice_label(name: str) -> str:
    """Return the label of a slice: what stands behind its kind, or a word for it."""
    return SLICE_LABELS.get(name) or name.partition(":")[2].replace("_", " ") or name


def metric_label(name: str) -> str:
    """Return the label of a metric, of a comparison's too."""
    base = name.removesuffix(DIFFERENCE_SUFFIX)
    label = METRIC_LABELS.get(base, base.replace("_", " "))
    return label if base == name else f"difference in {label}"


def format_number(value: float | None, *, digits: int = 3) -> str:
    """Return fixed decimals with a true minus, powers of ten if large, a dash for null."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED_TEXT
    text = f"{value:.{digits}f}" if abs(value) < 1_000 else f"{value:.2e}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


def format_interval(low: float | None, high: float | None) -> str:
    """Return ``[low, high]``, or nothing where there is no interval."""
    if low is None or high is None:
        return ""
    return f"[{format_number(low)}, {format_number(high)}]"


def format_count(value: int | float) -> str:
    """Return a count with thin spaces between thousands."""
    return f"{int(value):,}".replace(",", "\u202f")


def format_bytes(num_bytes: int | float) -> str:
    """Return a size in binary units."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    num_bytes, step = float(num_bytes), 0
    while num_bytes >= 1024 and step < len(units) - 1:
        num_bytes /= 1024
        step += 1
    return f"{num_bytes:.0f} {units[step]}" if step == 0 else f"{num_bytes:.1f} {units[step]}"
