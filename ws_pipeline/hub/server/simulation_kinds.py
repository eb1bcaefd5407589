"""What each repo of a simulated hub is: family, library, relation to an older repo, format.

What it is: the mix. The shares are those of the public hub as far as they are known: a few hundred
families of which the largest ten hold most repos, every tenth repo quantised, 45 % of the popular
ones with pickle only. What it is not: what happens to a repo over time (``simulation``). Pure.

Source: arXiv 2508.06811 (population of the hub), 2409.10472 (fine-tunes per base), 2503.10633.
"""

import bisect
import itertools
from dataclasses import dataclass
from typing import Any, Literal

from ws_pipeline.hub.server.draws import draw_share, mix
from ws_pipeline.hub.server.hostile import HOSTILE_KINDS, Hostile

NUM_FAMILIES = 300
TAIL = 1.3
"""Exponent of the families' sizes: the largest has 28 % of all repos, the tenth 1.4 %."""

RELATIONS: tuple[tuple[Literal["quantized", "adapter", "finetune"], float], ...] = (
    ("quantized", 0.1),
    ("adapter", 0.1),
    ("finetune", 0.5),
)
SHARE_PICKLE = 0.3
SHARE_SHARDED = 0.05
SHARE_COPY = 0.03
"""Of the fine-tunes: their first revision has the very weights of the older repo."""

_LIBRARIES = ("diffusers", "timm", "keras", "gguf", "sentence-transformers", "flair")
_RELATION_ENDS = list(itertools.accumulate(share for _, share in RELATIONS))


@dataclass(frozen=True, kw_only=True, slots=True)
class RepoKind:
    """What a repo is.

    Attributes:
        family: Its number. tags: Its library or model type, and the licence. base: The older repo
        that it says it came from. format: ``safetensors`` or ``pytorch``, a tag. copy_of: The older
        repo whose weights it uploaded first. hostile: In what it tries to do harm.
    """

    family: int
    library: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    relation: str = ""
    base: int | None = None
    format: Literal["safetensors", "pytorch"] = "safetensors"
    is_sharded: bool = False
    copy_of: int | None = None
    hostile: Hostile | None = None


class Population:
    """The kinds of all repos, by their numbers.

    Args:
        seed: Of everything.
        num_families: How many there are.
        share_hostile: Of repos that try to do harm.
    """

    def __init__(self, seed: int, num_families: int, share_hostile: float) -> None:
        self._seed = seed
        self._share_hostile = share_hostile
        sizes = [1 / rank**TAIL for rank in range(1, num_families + 1)]
        self._family_ends = list(itertools.accumulate(size / sum(sizes) for size in sizes))

    def kind(self, index: int, num_moves: int) -> RepoKind:
        """Return what a repo is after its family changed so many times."""
        draw = self._draw(10, index, num_moves)
        family = min(bisect.bisect(self._family_ends, draw), len(self._family_ends) - 1)
        library, name, config = _describe_family(family)
        tags = (name, "license:apache-2.0")
        hostile = self._hostile(index)
        if hostile is not None:  # with weights of its own, where the harm is
            return RepoKind(
                family=family, library=library, tags=tags, config=config, hostile=hostile
            )
        relation, base = self._relation(index)
        is_copy = base is not None and relation == "finetune"
        return RepoKind(
            family=family,
            library=library,
            tags=tags,
            config=config,
            relation=relation,
            base=base,
            format="pytorch" if self._draw(11, index) < SHARE_PICKLE else "safetensors",
            is_sharded=self._draw(19, index) < SHARE_SHARDED,
            copy_of=base if is_copy and self._draw(20, index) < SHARE_COPY else None,
        )

    def _relation(self, index: int) -> tuple[str, int | None]:
        place = bisect.bisect(_RELATION_ENDS, self._draw(12, index))
        if place == len(RELATIONS) or not index:
            return "", None
        base = int(index * self._draw(13, index) ** 3)  # most come from a few old ones
        return RELATIONS[place][0], base

    def _hostile(self, index: int) -> Hostile | None:
        if self._draw(21, index) >= self._share_hostile:
            return None
        return HOSTILE_KINDS[mix(self._seed, 22, index) % len(HOSTILE_KINDS)]

    def _draw(self, *parts: int) -> float:
        return draw_share(self._seed, *parts)


def _describe_family(family: int) -> tuple[str, str, dict[str, Any]]:
    """Return a family's library, its first tag, and what its configs say."""
    if family % 10 != 9:
        config = {"model_type": f"type{family}", "architectures": [f"Type{family}Model"]}
        return "transformers", f"type{family}", config
    library = _LIBRARIES[family // 10 % len(_LIBRARIES)]
    if library == "diffusers":
        return library, library, {"diffusers": {"_class_name": f"Pipeline{family}"}}
    return library, library, {"architecture": f"net{family}_base"} if library == "timm" else {}
