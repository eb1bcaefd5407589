"""Which of many models are measured: samples without chance. No torch, no I/O."""

from collections.abc import Sequence

NUM_RELATIVES = 8
"""Models of one lineage that are taken together, so that a sample has pairs of relatives."""


def sample_evenly(count: int, limit: int) -> list[int]:
    """Take at most ``limit`` of ``count`` places, evenly spread."""
    if count <= limit:
        return list(range(count))
    return [place * count // limit for place in range(limit)]


def sample_relatives(roots: Sequence[str], limit: int) -> list[int]:
    """Take at most ``limit`` places, relatives in groups, groups evenly spread.

    Places alone, evenly spread, would hold few relatives or none: of 1,280 models with six
    checkpoints each, every seventh place is another model.

    Args:
        roots: What the model at each place descends from.
        limit: At least ``NUM_RELATIVES``.
    """
    if len(roots) <= limit:
        return list(range(len(roots)))
    lineages: dict[str, list[int]] = {}
    for place, root in enumerate(roots):
        lineages.setdefault(root, []).append(place)
    groups = [
        places[start : start + NUM_RELATIVES]
        for places in lineages.values()
        for start in range(0, len(places), NUM_RELATIVES)
    ]
    chosen = sample_evenly(len(groups), limit // NUM_RELATIVES)
    return sorted(place for number in chosen for place in groups[number])
