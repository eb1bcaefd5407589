"""The study of generated weights: every baseline, the same numbers again, the report's section."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.evaluation.generation import (
    CONTROLS,
    evaluate_generation,
    generated_methods,
    run_case,
    score_seeds,
    split_cases,
)
from ws_pipeline.evaluation.generation_config import GenerationCase, GenerationConfig
from ws_pipeline.evaluation.generation_memory import error_overlap, weight_distance
from ws_pipeline.evaluation.generation_section import generation_blocks
from ws_pipeline.evaluation.generation_starts import BASELINES
from ws_pipeline.generation.config import DensityConfig

CASE = GenerationCase(zoo="cnns", population="cnn", dataset="digits")
CONFIG = GenerationConfig(
    cases=(CASE,),
    densities=(
        DensityConfig(kind="model-kde", bandwidth=0.2),
        DensityConfig(kind="blend", bandwidth=0.1),
    ),
    num_anchors=3,
    num_candidates=3,
    num_kept=2,
    num_rounds=2,
    seeds=(0, 1),
    steps=(0, 10),
    learning_rates=(1e-2,),
    eval_rows=200,
)


@pytest.fixture(scope="module")
def zoos(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoos")
    (folder / "cnns").symlink_to(zoo)
    return folder


@pytest.fixture(scope="module")
def results(backbone: Backbone, zoos: Path) -> pl.DataFrame:
    return evaluate_generation(backbone, zoos, recipe="test", config=CONFIG)


def value(results: pl.DataFrame, metric: str, method: str, slice_name: str = "all") -> float:
    chosen = results.filter(
        (pl.col("metric") == metric)
        & (pl.col("features") == method)
        & (pl.col("slice") == slice_name)
    )
    return float(chosen["value"].item())


def test_every_method_and_baseline_is_measured_at_every_step(results: pl.DataFrame) -> None:
    methods = {*BASELINES, *generated_methods(CONFIG), "blend-unaligned"}
    for metric in ("accuracy", "loss"):
        for step in CONFIG.steps:
            rows = results.filter(
                (pl.col("metric") == metric) & (pl.col("slice") == f"step:{step}")
            )
            assert set(rows["features"]) == methods
            assert (rows["num_models"] == 2).all()
            assert (rows["low"] <= rows["high"]).all()
    for metric in ("steps_to_target", "nearest_distance", "error_overlap"):
        assert set(results.filter(pl.col("metric") == metric)["features"]) == methods
    pairs = results.filter(pl.col("metric") == "steps_to_target_difference")["features"]
    assert len(pairs) == len(generated_methods(CONFIG)) * len(CONTROLS)


def test_anchors_are_copies_and_scratch_is_not(results: pl.DataFrame) -> None:
    assert value(results, "nearest_distance", "anchor") == 0.0
    assert value(results, "error_overlap", "anchor") == 1.0
    assert value(results, "nearest_distance", "encode-decode") < 1e-4
    assert 0.0 < value(results, "nearest_distance", "model-kde") < 0.5
    assert value(results, "nearest_distance", "best-training-model") > 0.5
    assert value(results, "nearest_distance", "scratch") > 0.5


def test_what_starts_from_anchors_is_better_than_scratch_at_first(results: pl.DataFrame) -> None:
    at_first = {m: value(results, "accuracy", m, "step:0") for m in ("anchor", "scratch")}
    assert at_first["anchor"] > at_first["scratch"] + 0.3
    assert value(results, "accuracy", "model-kde", "step:0") > at_first["scratch"] + 0.3
    assert value(results, "steps_to_target", "anchor") == 0.0


def test_the_study_gives_the_same_numbers_again(
    backbone: Backbone, zoos: Path, results: pl.DataFrame
) -> None:
    assert evaluate_generation(backbone, zoos, recipe="test", config=CONFIG).equals(results)


def test_another_shape_starts_from_resized_anchors(backbone: Backbone, zoos: Path) -> None:
    case = replace(CASE, sizes={"hidden_size": 24})
    outcome = run_case(backbone, zoos / "cnns", case, CONFIG)
    (anchor, *_) = [t for t in outcome.trajectories if t.start.method == "anchor"]
    assert anchor.start.model.weights["fc1.weight"].shape[0] == 24
    assert anchor.accuracies[0] > 0.5
    assert case.name == "cnn to digits, hidden_size 24"


def test_a_report_shows_each_case(results: pl.DataFrame) -> None:
    first, second = generation_blocks(results)
    assert "cnn to digits" in first.heading
    assert first.figure is not None
    assert "step 0" in first.tables[0].columns
    assert len(second.tables[0].rows) == len(BASELINES) + 4
    assert not list(generation_blocks(results.clear()))


def test_cases_without_their_zoo_are_left_out_and_named(zoos: Path, backbone: Backbone) -> None:
    absent = replace(CASE, zoo="elsewhere")
    config, left_out = split_cases(replace(CONFIG, cases=(CASE, absent)), zoos)
    assert config.cases == (CASE,)
    assert left_out == (absent,)
    few = replace(CONFIG, num_anchors=50)
    with pytest.raises(MissingInputError, match=r"50 models of population 'cnn'.*holds 4"):
        run_case(backbone, zoos / "cnns", CASE, few)


def test_no_case_is_an_empty_table(backbone: Backbone, tmp_path: Path) -> None:
    config = replace(CONFIG, cases=())
    assert evaluate_generation(backbone, tmp_path, recipe="test", config=config).is_empty()


def test_distances_and_overlaps_are_what_they_say() -> None:
    weights = {"a": np.array([3.0, 4.0]), "running_mean": np.array([9.0])}
    other = {"a": np.array([0.0, 4.0]), "running_mean": np.array([0.0])}
    assert weight_distance(weights, [other]) == 0.75
    assert weight_distance(weights, [other, weights]) == 0.0
    labels = torch.tensor([0, 0, 0, 0])
    one, two = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 1, 0])
    assert error_overlap(one, [two], labels) == pytest.approx(1 / 3)
    assert error_overlap(labels, [labels], labels) == 1.0


def test_an_interval_over_seeds_is_students() -> None:
    score = score_seeds([1.0, 2.0, 3.0], 0.95)
    assert score.value == 2.0
    assert score.high == pytest.approx(2.0 + 4.302653 / np.sqrt(3), rel=1e-5)
    assert score_seeds([1.0], 0.95).low is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seeds": (1, 1)}, "two different ones for an interval"),
        ({"steps": (0, 15)}, "multiples of 10"),
        ({"steps": (10, 20)}, "steps must be 0 and"),
        ({"num_kept": 21}, r"num_kept must lie in \[1, 20\], got 21"),
        ({"target_share": 0.0}, "target_share must lie in"),
    ],
)
def test_a_study_out_of_bounds_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        GenerationConfig(**values)  # type: ignore[arg-type]
