from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.families import (
    EVERYTHING_ELSE,
    check_family,
    family_of,
    tags_of,
)


@pytest.mark.parametrize(
    ("item", "family", "tags"),
    [
        ({"config": {"model_type": "gpt2"}}, "gpt2", ("gpt2",)),
        ({"config": {"model_type": "xlm-roberta"}}, "xlm-roberta", ("xlm-roberta",)),
        ({"config": {"model_type": "a b/c"}}, "a=20b=2Fc", ("a b/c",)),
        ({"config": {"model_type": "../x"}}, "x=2E.=2Fx", ("../x",)),
        (
            {
                "library_name": "diffusers",
                "config": {"diffusers": {"_class_name": "StableDiffusionPipeline"}},
            },
            "diffusers+StableDiffusionPipeline",
            ("diffusers:StableDiffusionPipeline",),
        ),
        ({"tags": ["diffusers"]}, "diffusers+other", ("diffusers",)),
        (
            {"library_name": "timm", "config": {"architecture": "vit_base_patch16_224.augreg"}},
            "timm+vit",
            ("timm",),
        ),
        (
            {
                "library_name": "peft",
                "config": {"model_type": "bert", "peft": {"task_type": "CAUSAL_LM"}},
            },
            "peft+CAUSAL_LM",
            ("peft",),
        ),
        ({"config": {"architectures": ["MyNet", "B"]}}, "architecture+MyNet", ()),
        ({"library_name": "keras"}, "library+keras", ("keras",)),
        ({}, "other", ()),
        ({"config": {"model_type": "x" * 97}}, "other", ()),
        ({"config": {"model_type": 3}, "tags": "timm"}, "other", ()),
        ({"config": {"model_type": "a\nb"}}, "other", ()),
        ({"config": []}, "other", ()),
        (None, "other", ()),
        ([1], "other", ()),
    ],
)
def test_a_rule_names_the_family_and_the_filter(
    item: Any, family: str, tags: tuple[str, ...]
) -> None:
    assert family_of(item) == family
    assert tags_of(family) == tags


@given(st.text(min_size=1, max_size=24))
def test_the_filter_follows_from_the_family_of_any_model_type(model_type: str) -> None:
    family = family_of({"config": {"model_type": model_type}})
    assert check_family(family) == family
    if family != EVERYTHING_ELSE:
        assert tags_of(family) == (model_type,)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | (
                st.dictionaries(
                    st.sampled_from(["config", "model_type", "tags", "library_name"]), inner
                )
            )
        ),
    )
)
def test_any_json_has_a_family(item: Any) -> None:
    assert check_family(family_of(item))


@pytest.mark.parametrize("family", ["", "a/b", "..", "-x", "a b", "x" * 97, "bert\n"])
def test_a_name_that_is_no_family_is_refused(family: str) -> None:
    with pytest.raises(ConfigError, match="A family's name is 1 to 96 letters"):
        tags_of(family)


def test_an_unknown_prefix_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"starts with one of peft\+, .*; got 'nothing\+x'"):
        tags_of("nothing+x")
