"""A hub of any size, of which nothing is stored: every repo is computed from its number and a seed.

What it is: the population and what happens to it over virtual time (pushes, new repos, renames,
deletions, settings, changes of family, rewritten histories). A million repos cost as much memory as
ten; a change costs a few hundred bytes. What it is not: what a repo is (``simulation_kinds``), what
it holds (``simulation_files``), HTTP (``simulation_routes``), or faults (``faults``). Pure, no I/O.

Source: arXiv 2508.06811 (population of the hub).
"""

import bisect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ws_pipeline.hub.server.draws import draw_hex, draw_share, mix
from ws_pipeline.hub.server.hostile import HOSTILE_REPO_IDS
from ws_pipeline.hub.server.simulation_kinds import NUM_FAMILIES, Population, RepoKind

FIRST_CREATION = datetime(2022, 3, 2, 23, 29, 4, tzinfo=UTC)
"""What the public hub states for everything older."""
CREATION_STEP = timedelta(seconds=50)
"""A million repos come into being within 19 months."""
CHANGE_STEP = timedelta(seconds=3)
"""About 29,000 changes a day."""

SHARE_GATED, SHARE_PRIVATE, SHARE_DISABLED, SHARE_MALFORMED = 0.03, 0.01, 0.002, 0.0005
SHARE_REWRITTEN = 0.1
"""Of the pushes: the history is squashed, what was before it cannot be had any more."""

Change = Literal["push", "create", "rename", "delete", "settings", "move"]
CHANGES: tuple[tuple[Change, float], ...] = (
    ("push", 0.72),
    ("create", 0.15),
    ("rename", 0.04),
    ("delete", 0.04),
    ("settings", 0.03),
    ("move", 0.02),
)
_CHANGE_ENDS = list(itertools.accumulate(share for _, share in CHANGES))
_NAME = re.compile(r"org(\d+)/m(\d+)(?:-v(\d+))?")


@dataclass(slots=True)
class RepoState:
    """What has happened to a repo: how often it was pushed to, renamed, ...; when last.

    Attributes:
        moves: The pushes that changed its family.
    """

    num_pushes: int = 0
    num_renames: int = 0
    num_settings: int = 0
    moves: tuple[int, ...] = ()
    is_deleted: bool = False
    last_change: int = -1


class SimulatedHub:
    """A population of repos at a virtual time. Not safe to change while it is read.

    Args:
        num_repos: At the beginning.
        seed: Of everything.
        num_families: How many kinds of models; small hubs of tests have fewer.
        share_hostile: Of repos that try to harm whoever reads them, each in one of the ways that
            ``hostile`` lists.
    """

    def __init__(
        self,
        num_repos: int,
        *,
        seed: int,
        num_families: int = NUM_FAMILIES,
        share_hostile: float = 0.001,
    ) -> None:
        self.num_repos = num_repos
        self.seed = seed
        self.num_changes = 0
        self._num_first = num_repos
        self._population = Population(seed, num_families, share_hostile)
        self._creations: list[int] = []  # the changes that made the repos beyond the first ones
        self._states: dict[int, RepoState] = {}  # of the repos that have changed, oldest first

    def advance(self, num_changes: int) -> None:
        """Let the given number of changes happen, each of one repo."""
        for number in range(self.num_changes, self.num_changes + num_changes):
            self._change(number)
        self.num_changes += num_changes

    def _change(self, number: int) -> None:
        draw = draw_share(self.seed, 1, number)
        kind = CHANGES[min(bisect.bisect(_CHANGE_ENDS, draw), len(CHANGES) - 1)][0]
        if kind == "create":
            index, self.num_repos = self.num_repos, self.num_repos + 1
            self._creations.append(number)
        else:
            index = mix(self.seed, 2, number) % self.num_repos
        state = self._states.pop(index, RepoState())  # to the end of the order of changes
        self._states[index] = state
        state.last_change = number
        state.num_pushes += kind in ("push", "move")
        state.num_renames += kind == "rename"
        state.num_settings += kind == "settings"
        state.moves += (state.num_pushes,) if kind == "move" else ()
        state.is_deleted = kind == "delete"  # any other change of a deleted repo brings it back

    def state(self, index: int) -> RepoState:
        """Return what has happened to a repo."""
        return self._states.get(index) or RepoState()

    def oldest_first(self, start: int = 0) -> Iterator[int]:
        """Yield the numbers of the repos by creation, those that are deleted left out."""
        return (i for i in range(start, self.num_repos) if not self.state(i).is_deleted)

    def recent_first(self, cursor: tuple[int, int] | None = None) -> Iterator[tuple[int, int]]:
        """Yield (last change, number) of the repos by last change, the newest first.

        Args:
            cursor: The last pair of an earlier page; what changed since then is not shown again.
        """
        change, index = cursor or (self.num_changes, self._num_first)
        if change >= 0:
            for number, state in reversed(self._states.items()):
                if state.last_change < change and not state.is_deleted:
                    yield state.last_change, number
            index = self._num_first
        yield from ((-1, i) for i in range(index - 1, -1, -1) if i not in self._states)

    def created_at(self, index: int) -> datetime:
        """Return when a repo came into being."""
        if index >= self._num_first:  # after all that was there from the beginning
            return self._changed_at(self._creations[index - self._num_first])
        return FIRST_CREATION + index * CREATION_STEP

    def last_modified(self, index: int) -> datetime:
        """Return when a repo changed last."""
        state = self.state(index)
        return self.created_at(index) if state.last_change < 0 else self._changed_at(
            state.last_change
        )  # fmt: skip

    def _changed_at(self, number: int) -> datetime:
        return FIRST_CREATION + self._num_first * CREATION_STEP + (number + 1) * CHANGE_STEP

    def name(self, index: int, num_renames: int | None = None) -> str:
        """Return a repo's name, or the one that it had after so many renames."""
        number = self.state(index).num_renames if num_renames is None else num_renames
        owner = mix(self.seed, 3, index) % 20_000
        return f"org{owner}/m{index}" + (f"-v{number}" if number else "")

    def find(self, repo_id: str) -> int | None:
        """Return the number of the repo that has or had a name; None if it is not there."""
        match = _NAME.fullmatch(repo_id)
        index = int(match.group(2)) if match and len(match.group(2)) < 12 else -1
        if not 0 <= index < self.num_repos or self.state(index).is_deleted:
            return None
        names = (self.name(index, number) for number in range(self.state(index).num_renames + 1))
        return index if repo_id in names else None

    def sha(self, index: int, push: int | None = None) -> str:
        """Return the repo's revision, or the one that it had after so many pushes."""
        push = self.state(index).num_pushes if push is None else push
        return draw_hex(self.seed, 4, index, push, digits=40)

    def find_push(self, index: int, revision: str) -> int | None:
        """Return which push made a revision; None if there is none, or if it was rewritten away."""
        for push in range(self.state(index).num_pushes, -1, -1):
            if self.sha(index, push) == revision:
                return push
            if draw_share(self.seed, 18, index, push) < SHARE_REWRITTEN:
                return None
        return None

    def kind(self, index: int, push: int | None = None) -> RepoKind:
        """Return what a repo is, or was after so many pushes."""
        moves = self.state(index).moves
        return self._population.kind(index, sum(push is None or move <= push for move in moves))

    def is_private(self, index: int) -> bool:
        """Say whether a repo shows itself to requests with a token only."""
        return draw_share(self.seed, 17, index, self.state(index).num_settings) < SHARE_PRIVATE

    def is_disabled(self, index: int) -> bool:
        """Say whether the hub has closed a repo."""
        return draw_share(self.seed, 5, index) < SHARE_DISABLED

    def gated(self, index: int) -> str | bool:
        """Return ``auto``, ``manual`` or False."""
        if draw_share(self.seed, 9, index, self.state(index).num_settings) >= SHARE_GATED:
            return False
        return "manual" if index % 2 else "auto"

    def row(self, index: int) -> dict[str, Any]:
        """Return a repo's listing row, as the hub's API names its fields."""
        kind = self.kind(index)
        row: dict[str, Any] = {
            "_id": f"{int(self.created_at(index).timestamp()):08x}{index:016x}",
            "id": self.name(index),
            "sha": self.sha(index),
            "createdAt": _show(self.created_at(index)),
            "lastModified": _show(self.last_modified(index)),
            "gated": self.gated(index),
            "private": self.is_private(index),
            "disabled": self.is_disabled(index),
            "library_name": kind.library,
            "tags": [*kind.tags, *self._relation_tags(kind), kind.format],
            "config": kind.config,
        }
        if draw_share(self.seed, 6, index) < SHARE_MALFORMED:
            field = ("sha", "lastModified", "gated", "_id")[mix(self.seed, 7, index) % 4]
            row[field] = ("../../etc/passwd", 12, ["x"])[mix(self.seed, 8, index) % 3]
        if kind.hostile == "repo_id":
            row["id"] = HOSTILE_REPO_IDS[index % len(HOSTILE_REPO_IDS)]
        return row

    def _relation_tags(self, kind: RepoKind) -> list[str]:
        """Return the tags that say which earlier repo this one came from."""
        if kind.base is None:
            return []
        base = self.name(kind.base, 0)  # as the card was written: no rename reaches it
        return [f"base_model:{base}", f"base_model:{kind.relation}:{base}"]


def _show(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
