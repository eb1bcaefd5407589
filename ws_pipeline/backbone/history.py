"""The metrics of a run as a file beside its checkpoints, and who else is told. Does I/O.

`metrics.jsonl` is the run's own record: figures are drawn from it, and it survives a tracking
server that is away. A resumed run drops the points after its checkpoint, so that no step stands
twice.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

FILE_NAME = "metrics.jsonl"


@runtime_checkable
class Observer(Protocol):
    """Someone who is told of a training's course, on the main process only."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of a step."""

    def message(self, text: str) -> None:
        """Take a sentence for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricPoint:
    """Metrics by name at one step."""

    step: int
    values: Mapping[str, float]


class History:
    """The record of one run.

    Args:
        folder: The run's folder.
        step: Points after this step are dropped: they come again.
        main: Whether this process writes.
    """

    def __init__(self, folder: Path, *, step: int, main: bool = True) -> None:
        self.path = folder / FILE_NAME
        self.points = [point for point in read_history(folder) if point.step <= step]
        if not main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(map(_line, self.points)), encoding="utf-8")
        temporary.replace(self.path)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append one point."""
        point = MetricPoint(step=step, values=dict(values))
        self.points.append(point)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(point))

    def message(self, text: str) -> None:
        """Sentences are for people; nothing is kept."""

    def sync(self) -> None:
        """Flush to disk, before a checkpoint that counts on the points."""
        with self.path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())


def read_history(folder: Path) -> list[MetricPoint]:
    """Return the points of a run folder; a last line that a kill cut off is left out."""
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            break
        points.append(MetricPoint(step=content["step"], values=content["metrics"]))
    return points


def series(points: Sequence[MetricPoint], name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of one metric."""
    pairs = [(point.step, point.values[name]) for point in points if name in point.values]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _line(point: MetricPoint) -> str:
    return json.dumps({"step": point.step, "metrics": dict(point.values)}) + "\n"
