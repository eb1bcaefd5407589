"""A hub of any size, of which nothing is stored: every repo is computed from its number and a seed.

What it is: the population (families by a heavy tail, fine-tunes and quantised copies of earlier
repos, gated, disabled, pickle-only and malformed ones) and what happens to it over virtual time
(pushes, new repos, renames, deletions, settings, changes of family). A million repos cost as much
memory as ten; a change costs a few hundred bytes. What it is not: HTTP (``simulation_routes``), or
faults (``faults``). Pure, no I/O.

The shares are those of the public hub as far as they are known: a few hundred families of which the
largest ten hold most repos, every tenth repo quantised, 45 % of the popular ones with pickle only,
gated about 3 %.

Source: arXiv 2508.06811 (population of the hub), 2409.10472 (fine-tunes per base), 2503.10633.
"""

import bisect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

NUM_FAMILIES = 300
TAIL = 1.3
"""Exponent of the families' sizes: the largest has 28 % of all repos, the tenth 1.4 %."""

FIRST_CREATION = datetime(2022, 3, 2, 23, 29, 4, tzinfo=UTC)
"""What the public hub states for everything older."""
CREATION_STEP = timedelta(seconds=50)
"""A million repos come into being within 19 months."""
CHANGE_STEP = timedelta(seconds=3)
"""About 29,000 changes a day."""

SHARE_GATED, SHARE_DISABLED, SHARE_MALFORMED = 0.03, 0.002, 0.0005
SHARE_QUANTIZED, SHARE_FINETUNED, SHARE_ADAPTER, SHARE_PICKLE = 0.1, 0.5, 0.1, 0.3

Change = Literal["push", "create", "rename", "delete", "settings", "move"]
CHANGES: tuple[tuple[Change, float], ...] = (
    ("push", 0.72),
    ("create", 0.15),
    ("rename", 0.04),
    ("delete", 0.04),
    ("settings", 0.03),
    ("move", 0.02),
)

_LIBRARIES = ("diffusers", "timm", "keras", "gguf", "sentence-transformers", "flair")
_NAME = re.compile(r"org(\d+)/m(\d+)(?:-v(\d+))?")
_MASK = 2**64 - 1


def _mix(*parts: int) -> int:
    """Return 64 well-mixed bits of a few numbers.

    Source: https://prng.di.unimi.it/splitmix64.c.
    """
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def _share(*parts: int) -> float:
    """Return a number in [0, 1) that is a function of the parts."""
    return _mix(*parts) / 2**64


def _accumulate_tail(num_families: int) -> list[float]:
    """Return where in [0, 1) each family ends, the largest first."""
    sizes = [1 / rank**TAIL for rank in range(1, num_families + 1)]
    return list(itertools.accumulate(size / sum(sizes) for size in sizes))


_CHANGE_ENDS = list(itertools.accumulate(share for _, share in CHANGES))


@dataclass(slots=True)
class RepoState:
    """What has happened to a repo: how often it was pushed to, renamed, ...; when last."""

    num_pushes: int = 0
    num_renames: int = 0
    num_settings: int = 0
    num_moves: int = 0
    is_deleted: bool = False
    last_change: int = -1


class SimulatedHub:
    """A population of repos at a virtual time. Not safe to change while it is read.

    Args:
        num_repos: At the beginning.
        seed: Of everything.
        num_families: How many kinds of models; small hubs of tests have fewer.
    """

    def __init__(self, num_repos: int, *, seed: int, num_families: int = NUM_FAMILIES) -> None:
        self.num_repos = num_repos
        self.seed = seed
        self.num_changes = 0
        self._num_first = num_repos
        self._family_ends = _accumulate_tail(num_families)
        self._creations: list[int] = []  # the changes that made the repos beyond the first ones
        self._states: dict[int, RepoState] = {}  # of the repos that have changed, oldest first

    def advance(self, num_changes: int) -> None:
        """Let the given number of changes happen, each of one repo."""
        for number in range(self.num_changes, self.num_changes + num_changes):
            self._change(number)
        self.num_changes += num_changes

    def _change(self, number: int) -> None:
        draw = _share(self.seed, 1, number)
        kind = CHANGES[min(bisect.bisect(_CHANGE_ENDS, draw), len(CHANGES) - 1)][0]
        if kind == "create":
            index, self.num_repos = self.num_repos, self.num_repos + 1
            self._creations.append(number)
        else:
            index = _mix(self.seed, 2, number) % self.num_repos
        state = self._states.pop(index, RepoState())  # to the end of the order of changes
        self._states[index] = state
        state.last_change = number
        state.num_pushes += kind in ("push", "move")
        state.num_renames += kind == "rename"
        state.num_settings += kind == "settings"
        state.num_moves += kind == "move"
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
        owner = _mix(self.seed, 3, index) % 20_000
        return f"org{owner}/m{index}" + (f"-v{number}" if number else "")

    def find(self, repo_id: str) -> int | None:
        """Return the number of the repo that has or had a name; None if it is not there."""
        match = _NAME.fullmatch(repo_id)
        index = int(match.group(2)) if match and len(match.group(2)) < 12 else -1
        if not 0 <= index < self.num_repos or self.state(index).is_deleted:
            return None
        names = (self.name(index, number) for number in range(self.state(index).num_renames + 1))
        return index if repo_id in names else None

    def sha(self, index: int) -> str:
        """Return the repo's revision."""
        return self._hex(4, index, self.state(index).num_pushes, digits=40)

    def _hex(self, *parts: int, digits: int) -> str:
        words = range(-(-digits // 16))
        return "".join(f"{_mix(self.seed, n, *parts):016x}" for n in words)[:digits]

    def row(self, index: int) -> dict[str, Any]:
        """Return a repo's listing row, as the hub's API names its fields."""
        state = self.state(index)
        row: dict[str, Any] = {
            "_id": f"{int(self.created_at(index).timestamp()):08x}{index:016x}",
            "id": self.name(index),
            "sha": self.sha(index),
            "createdAt": _show(self.created_at(index)),
            "lastModified": _show(self.last_modified(index)),
            "gated": self._gated(index, state),
            "private": False,
            "disabled": self._draw(5, index) < SHARE_DISABLED,
            **self._kind(index, state),
        }
        if self._draw(6, index) < SHARE_MALFORMED:
            field = ("sha", "lastModified", "gated", "_id")[_mix(self.seed, 7, index) % 4]
            row[field] = ("../../etc/passwd", 12, ["x"])[_mix(self.seed, 8, index) % 3]
        return row

    def _gated(self, index: int, state: RepoState) -> str | bool:
        if self._draw(9, index, state.num_settings) >= SHARE_GATED:
            return False
        return "manual" if index % 2 else "auto"

    def _draw(self, *parts: int) -> float:
        return _share(self.seed, *parts)

    def _kind(self, index: int, state: RepoState) -> dict[str, Any]:
        """Return what a row says of the kind of model: library, tags, config."""
        draw = self._draw(10, index, state.num_moves)
        family = min(bisect.bisect(self._family_ends, draw), len(self._family_ends) - 1)
        tags = ["license:apache-2.0", *self._relation(index)]
        if self._draw(11, index) < SHARE_PICKLE:
            tags.append("pytorch")
        else:
            tags.append("safetensors")
        if family % 10 == 9:
            library = _LIBRARIES[family // 10 % len(_LIBRARIES)]
            config: dict[str, Any] = {}
            if library == "diffusers":
                config = {"diffusers": {"_class_name": f"Pipeline{family}"}}
            if library == "timm":
                config = {"architecture": f"net{family}_base"}
            return {"library_name": library, "tags": [library, *tags], "config": config}
        model_type = f"type{family}"
        config = {"model_type": model_type, "architectures": [f"Type{family}Model"]}
        return {"library_name": "transformers", "tags": [model_type, *tags], "config": config}

    def _relation(self, index: int) -> list[str]:
        """Return the tags that say which earlier repo this one came from."""
        draw = self._draw(12, index)
        shares = (SHARE_QUANTIZED, SHARE_ADAPTER, SHARE_FINETUNED)
        bounds = zip(("quantized", "adapter", "finetune"), itertools.accumulate(shares),
                     strict=True)  # fmt: skip
        relation = next((name for name, end in bounds if draw < end), "")
        if not relation or not index:
            return []
        base = self.name(int(index * self._draw(13, index) ** 3))  # most come from a few old ones
        return [f"base_model:{base}", f"base_model:{relation}:{base}"]

    def detail(self, index: int) -> dict[str, Any]:
        """Return what the hub says of a repo's revision, with its files."""
        row = self.row(index)
        name = "model.safetensors" if "safetensors" in row["tags"] else "pytorch_model.bin"
        size = 10 ** (3 + _mix(self.seed, 14, index) % 7)
        pushes = self.state(index).num_pushes
        large = {"sha256": self._hex(15, index, pushes, digits=64), "size": size}
        small = {"rfilename": "config.json", "size": 600, "blobId": self._hex(16, index, digits=40)}
        weights = {"rfilename": name, "size": size, "lfs": large}
        card = {"license": "apache-2.0"}
        return {**row, "sha": self.sha(index), "cardData": card, "siblings": [small, weights]}


def _show(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
