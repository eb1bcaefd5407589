"""Fused projections: rows are shared out as the models themselves do it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.fused import split_fused_rows
from ws_pipeline.weights.plan import plan_layers
from ws_pipeline_tests.weights.architectures import make_config

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("phi3", {}),
    ("phi3", {"num_key_value_heads": 4}),
    ("gpt_neox", {}),
    ("gpt_bigcode", {"multi_query": True}),
    ("gpt_bigcode", {"multi_query": False}),
    ("bloom", {}),
    ("falcon", {"multi_query": True, "new_decoder_architecture": False}),
    ("falcon", {"multi_query": False, "new_decoder_architecture": False}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 2}),
]
FUSED = ("c_attn", "qkv_proj", "query_key_value")


def observe_attention(model: PreTrainedModel, kind: str, size: int) -> list[np.ndarray]:
    """What the first block's attention takes for queries, keys and values: (head, head_size).

    The projection is made to give its own row numbers. A single token at place 0 is not rotated.
    """
    name, fused = next(
        (name, module) for name, module in model.named_modules() if name.endswith(FUSED)
    )
    numbers = torch.arange(size, dtype=torch.float32)[None, None]
    if kind in {"bloom", "falcon"}:
        attention = model.get_submodule(name.rpartition(".")[0])
        split = attention._reshape if kind == "bloom" else attention._split_heads
        parts = split(numbers)
        return [part[0, :, 0] if kind == "bloom" else part[0, 0] for part in parts]
    seen: list[np.ndarray] = []

    def spy(module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        if not seen:
            seen.extend(part[0, :, 0].detach() for part in (query, key, value))
        return torch.zeros(1, 1, *query.shape[1::2]), None

    ALL_ATTENTION_FUNCTIONS.register("spy", spy)
    model.config._attn_implementation = "spy"
    fused.forward = lambda *_: numbers
    model(input_ids=torch.zeros(1, 1, dtype=torch.long))
    return seen


@pytest.mark.parametrize(("kind", "changes"), MODELS)
def test_rows_are_shared_out_as_the_model_does(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    config = make_config(kind)
    for name, value in changes.items():
        setattr(config, name, value)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    plan = plan_layers(list(checkpoint.tensors.values()), checkpoint.config)
    layer = next(layer for layer in plan.layers if str(layer.role) == "fused_qkv")
    rows = split_fused_rows(layer.rows, checkpoint.config)
    assert rows is not None
    observed = observe_attention(model, kind, layer.rows)
    for mine, theirs in zip((rows.queries, rows.keys, rows.values), observed, strict=True):
        # Shared keys come once from us, from some models once per query head.
        unique = list(dict.fromkeys(map(tuple, np.asarray(theirs).astype(int).tolist())))
        assert unique == [tuple(row) for row in mine.tolist()]


@given(
    st.integers(0, 100),
    st.dictionaries(
        st.sampled_from(["num_attention_heads", "num_kv_heads", "multi_query", "n_head",
                         "new_decoder_architecture", "num_key_value_heads"]),
        st.none() | st.booleans() | st.integers(-2, 12) | st.text(max_size=2),
    ),
    st.sampled_from(["bloom", "gpt2", "falcon", "gpt_bigcode", "phi3", "llama", None]),
)  # fmt: skip
def test_every_row_has_one_owner_or_nothing_is_said(
    num_rows: int, config: dict[str, Any], kind: str | None
) -> None:
    rows = split_fused_rows(num_rows, config | {"model_type": kind})
    if rows is not None:
        parts = [part.reshape(-1) for part in (rows.queries, rows.keys, rows.values)]
        assert sorted(np.concatenate(parts).tolist()) == list(range(num_rows))
