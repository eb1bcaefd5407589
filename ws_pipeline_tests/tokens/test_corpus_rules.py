"""Corpus rules: each refuses what it is for, the oldest stays, thresholds are the policy's."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError
from ws_pipeline.tokens.corpus_rules import CorpusPolicy
from ws_pipeline_tests.tokens.corpus_tables import Weights, build_models, make_weights, reasons


def round_weights(weights: Weights) -> Weights:
    return {name: v.astype(np.float16).astype(np.float32) for name, v in weights.items()}


def scale(weights: Weights, factor: float) -> Weights:
    return {name: (v * factor).astype(np.float32) for name, v in weights.items()}


def test_the_same_layers_under_other_names_are_a_copy_with_a_proven_edge() -> None:
    weights = make_weights(1)
    renamed = {f"model.{name}": values for name, values in reversed(weights.items())}
    corpus = build_models([weights, renamed])
    assert reasons(corpus) == {"id0": "", "id1": "duplicate_tensors"}
    edges = corpus.edges.filter(pl.col("evidence") == "tensors").to_dicts()
    assert [(e["child"], e["parent"], e["relation"], e["proven"]) for e in edges] == [
        ("id1", "id0", "identical", True)
    ]


def test_a_rounded_copy_is_near_and_its_edge_is_not_called_proven() -> None:
    corpus = build_models([make_weights(1), make_weights(2), round_weights(make_weights(1))])
    assert reasons(corpus) == {"id0": "", "id1": "", "id2": "near_duplicate"}
    detail = corpus.verdicts["detail"][2]
    assert "of those of zoo/m0; up to 0.01 counts as a copy." in detail
    (edge,) = corpus.edges.to_dicts()
    assert (edge["relation"], edge["evidence"], edge["proven"]) == ("similar", "near", False)


def test_the_bound_on_near_copies_is_the_policys() -> None:
    weights = make_weights(1)
    models = [weights, scale(weights, 1.02)]
    assert reasons(build_models(models))["id1"] == ""
    loose = build_models(models, policy=CorpusPolicy(near_distance=0.05))
    assert reasons(loose)["id1"] == "near_duplicate"
    rounded = [weights, round_weights(weights)]
    assert reasons(build_models(rounded, policy=CorpusPolicy(near_distance=0.0)))["id1"] == ""


def test_a_model_of_constants_is_refused_and_makes_no_copies() -> None:
    zeros = {name: np.zeros_like(v) for name, v in make_weights(1).items()}
    corpus = build_models([zeros, zeros])
    assert set(reasons(corpus).values()) == {"constant_weights"}
    assert corpus.models.is_empty()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=10))
@settings(max_examples=30, deadline=None)
def test_younger_models_never_change_the_verdict_on_older_ones(steps: list[int]) -> None:
    weights = make_weights(1, num_layers=2)
    models = [scale(weights, 1 + 0.004 * step) for step in steps]
    verdicts = reasons(build_models(models))
    for count in range(1, len(models)):
        older = reasons(build_models(models[:count]))
        assert older == {hub_id: verdicts[hub_id] for hub_id in older}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"near_distance": -0.1}, r"CorpusPolicy\.near_distance must be within \[0, 0\.5\]"),
        ({"near_distance": 0.6}, r"must be within \[0, 0\.5\], it is 0\.6"),
        ({"max_lineage_members": -1}, r"must be 0 \(no bound\) or more, it is -1"),
    ],
)
def test_a_policy_out_of_bounds_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CorpusPolicy(**change)  # type: ignore[arg-type]
