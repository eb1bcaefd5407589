"""The natural order of a model's tensors, and the block each belongs to, from names alone. No I/O.

A safetensors file does not keep the order in which the network runs (writers sort by dtype and
name), so it is read from the names: the input side first, then by name with numbers compared as
numbers, the heads last. Where the config states ``tensor_order`` that counts.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ws_pipeline.weights.role_rules import STAGE_RULES, Stage

_STAGES = tuple((stage, re.compile(pattern)) for stage, pattern in STAGE_RULES)
_DECODER = re.compile(r"(^|[._])decoder\.")
_DIGITS = re.compile(r"(\d+)")
# The prefix up to the first component that is a number, with a numbered component before it
# ("layer1.0") or without one ("layers.11").
_BLOCK = re.compile(r"^(.*?(?:^|[./])\d+)(?=[./])")

TENSOR_ORDER_KEY = "tensor_order"

NameKey = tuple[tuple[int, int, str], ...]


def order_tensors(names: Collection[str], config: Mapping[str, Any]) -> list[str]:
    """Return the names in order: as ``config["tensor_order"]`` states, then natural."""
    stated = config.get(TENSOR_ORDER_KEY)
    ranks: dict[str, int] = {}
    if isinstance(stated, list):
        for rank, name in enumerate(stated):
            if isinstance(name, str):
                ranks.setdefault(name, rank)
    unstated = len(ranks)
    return sorted(
        names, key=lambda name: (ranks.get(name, unstated), stage_of(name), name_key(name))
    )


def number_blocks(ordered: Sequence[str]) -> dict[str, int]:
    """Return for each name the ordinal of its numbered block in the given order; -1 outside any."""
    ordinals: dict[str, int] = {}
    blocks: dict[str, int] = {}
    for name in ordered:
        match = _BLOCK.match(name)
        blocks[name] = -1 if match is None else ordinals.setdefault(match[1], len(ordinals))
    return blocks


def stage_of(name: str) -> Stage:
    """Return where a tensor stands; numbered blocks are the middle, those of a decoder after it."""
    lowered = name.lower()
    if _BLOCK.match(name):
        return Stage.DECODER if _DECODER.search(lowered) else Stage.MIDDLE
    return next((stage for stage, pattern in _STAGES if pattern.search(lowered)), Stage.MIDDLE)


def name_key(name: str) -> NameKey:
    """Return a total sort key under which ``layer.2`` comes before ``layer.10``."""
    pieces = _DIGITS.split(name)
    key = tuple(
        (0, int(piece), "") if piece.isdecimal() and piece.isascii() else (1, 0, piece)
        for piece in pieces
        if piece
    )
    # "01" and "1" are equal as numbers: the raw name settles it.
    return (*key, (2, 0, name))
