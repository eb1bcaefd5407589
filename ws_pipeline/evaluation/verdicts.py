"""The findings as a grid: tasks down, controls across, a verdict in each cell. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

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
from ws_pipeline.evaluation.labels import feature_label, metric_label
from ws_pipeline.evaluation.summary import Finding

_COLUMNS = (
    ("mean or chance", (MEAN, RANDOM)),
    ("family's name", (FAMILY,)),
    ("hyper-parameters", (HYPER_PARAMETERS, HYPER_PARAMETERS + BOOSTED)),
    ("untrained", (UNTRAINED,)),
    ("s(W)", (STATISTICS, STATISTICS + BOOSTED)),
    ("distance of weights", (L2, L2_ALIGNED)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictRow:
    """One representation at one task; a cell is None where the comparison does not exist."""

    task: str
    subject: str
    metric: str
    score: str
    num_models: int
    cells: tuple[Finding | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictGrid:
    """Which representation beats which control at which task."""

    controls: tuple[str, ...]
    rows: tuple[VerdictRow, ...]


def verdict_grid(findings: Sequence[Finding]) -> VerdictGrid:
    """Return findings by task and control; controls that were never compared with are left out."""
    columns = [
        (label, names)
        for label, names in _COLUMNS
        if any(finding.control in names for finding in findings)
    ]
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.task, finding.subject), []).append(finding)
    rows = tuple(
        VerdictRow(
            task=task[0].upper() + task[1:],
            subject=feature_label(subject),
            metric=metric_label(group[0].metric),
            score=group[0].score,
            num_models=group[0].num_models,
            cells=tuple(
                next((finding for finding in group if finding.control in names), None)
                for _, names in columns
            ),
        )
        for (task, subject), group in groups.items()
    )
    return VerdictGrid(controls=tuple(label for label, _ in columns), rows=rows)
