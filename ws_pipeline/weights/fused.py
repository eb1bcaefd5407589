"""Which outputs of a fused attention projection are queries, keys and values. No I/O.

One matrix holds all three, and libraries share its rows out in three ways: one block after another
(GPT-2, where the rows are the columns of the file, torch's MultiheadAttention, timm, Phi-3), head
by head (BLOOM, GPT-NeoX, Falcon-RW), or by groups of heads with one key and one value (Falcon-40B).
Names do not tell them apart, so the config's ``model_type`` does; what is not known here gives
None, never a guess. Not here: which matrices are fused (``roles``).

Sources: ``_split_heads`` and ``_reshape`` of the models in transformers 5.23; torch's
``MultiheadAttention`` documents ``in_proj_weight``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

HEAD_BY_HEAD = frozenset({"bloom", "gpt_neox"})
IN_BLOCKS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "phi3", "phimoe"})
ONE_KEY_OR_MANY = frozenset({"falcon", "gpt_bigcode"})
"""One key and value for all heads, after the queries; or, where ``multi_query`` is false, head by
head."""

_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads")

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedRows:
    """Rows of the (output, input) matrix, head after head; see ``axes`` for the matrix.

    Attributes:
        queries: ``(num_heads, head_size)``.
        keys: ``(num_key_heads, head_size)``.
        values: ``(num_key_heads, head_size)``.
    """

    queries: Rows
    keys: Rows
    values: Rows


def split_fused_rows(num_rows: int, config: Mapping[str, Any]) -> FusedRows | None:
    """Return whose each row of a fused projection is; None where it is not known.

    Args:
        num_rows: Outputs of the projection.
        config: The model's ``config.json``.
    """
    kind = config.get("model_type")
    heads = _read_count(config, _HEADS)
    if heads is None or kind not in HEAD_BY_HEAD | IN_BLOCKS | ONE_KEY_OR_MANY:
        return None
    key_heads = _read_count(config, _KEY_HEADS) or heads
    if kind == "falcon" and config.get("new_decoder_architecture"):
        return _split_groups(num_rows, key_heads, heads // key_heads)
    if kind in IN_BLOCKS:
        return _split_blocks(num_rows, heads, key_heads)
    if kind in ONE_KEY_OR_MANY and config.get("multi_query", True):
        return _split_blocks(num_rows, heads, 1)
    return _split_groups(num_rows, heads, 1)


def _split_blocks(num_rows: int, heads: int, key_heads: int) -> FusedRows | None:
    """All queries, then all keys, then all values."""
    parts = heads + 2 * key_heads
    if not num_rows or num_rows % parts:
        return None
    rows = np.arange(num_rows, dtype=np.int64).reshape(parts, -1)
    return FusedRows(
        queries=rows[:heads], keys=rows[heads : heads + key_heads], values=rows[-key_heads:]
    )


def _split_groups(num_rows: int, groups: int, queries_per_group: int) -> FusedRows | None:
    """Of each group its queries, its key, its value."""
    parts = queries_per_group + 2
    if queries_per_group < 1 or not num_rows or num_rows % (groups * parts):
        return None
    rows = np.arange(num_rows, dtype=np.int64).reshape(groups, parts, -1)
    return FusedRows(
        queries=rows[:, :-2].reshape(groups * queries_per_group, -1),
        keys=rows[:, -2],
        values=rows[:, -1],
    )


def _read_count(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    found = (config.get(name) for name in names)
    return next((value for value in found if type(value) is int and value > 0), None)
