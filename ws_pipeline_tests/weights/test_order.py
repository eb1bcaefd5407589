"""Order: from names alone, numbers as numbers, input first, heads last, config when it says so."""

from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.weights.order import name_key, number_blocks, order_tensors


def test_numbers_in_names_are_compared_as_numbers() -> None:
    names = ["layers.10.w", "layers.2.w", "layers.1.w"]
    assert order_tensors(names, {}) == ["layers.1.w", "layers.2.w", "layers.10.w"]


def test_inputs_come_first_and_heads_last() -> None:
    names = [
        "lm_head.weight",
        "transformer.h.0.mlp.w",
        "transformer.ln_f.weight",
        "transformer.wte",
    ]
    assert order_tensors(names, {}) == [
        "transformer.wte",
        "transformer.h.0.mlp.w",
        "transformer.ln_f.weight",
        "lm_head.weight",
    ]


def test_a_decoder_comes_after_its_encoder() -> None:
    names = ["decoder.block.0.w", "encoder.block.3.w"]
    assert order_tensors(names, {}) == ["encoder.block.3.w", "decoder.block.0.w"]


def test_the_order_that_the_config_states_counts() -> None:
    config = {"tensor_order": ["c", "a", "gone", "a", 7]}
    assert order_tensors(["a", "b", "c"], config) == ["c", "a", "b"]
    assert order_tensors(["b", "a"], {"tensor_order": "nonsense"}) == ["a", "b"]


def test_blocks_are_numbered_in_order_over_the_whole_model() -> None:
    names = ["stem.w", "layer1.0.conv.w", "layer1.0.bn.w", "layer1.1.conv.w", "layer2.0.conv.w"]
    assert list(number_blocks(names).values()) == [-1, 0, 0, 1, 2]
    assert number_blocks(["l.3.experts.7.w", "l.3.router.w", "w.5"]) == {
        "l.3.experts.7.w": 0,
        "l.3.router.w": 0,
        "w.5": -1,
    }


@given(
    st.lists(st.text(max_size=10) | st.from_regex(r"[a-c.]{0,4}\d{1,3}[.a-c]{0,4}"), unique=True)
)
def test_the_order_does_not_depend_on_the_order_given(names: list[str]) -> None:
    expected = order_tensors(names, {})
    assert sorted(expected) == sorted(names)
    assert order_tensors(names[::-1], {}) == expected
    assert len({name_key(name) for name in names}) == len(names)
