from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, ZooConfig
from ws_pipeline.zoo.grid import expand_factors, plan_population, plan_zoo

VALUES = {"learning_rate": (1e-3, 1e-2, 1e-1), "label_noise": (0.0, 0.2)}
GRID = GridConfig(
    name="a",
    architecture="mlp",
    dataset="digits",
    factors=FactorGrid(values=VALUES),
    seeds=(0, 1),
    keep_epochs=(1,),
    keep_every=3,
)


def test_a_product_has_every_combination_and_every_seed_once() -> None:
    plans = plan_population(GRID, None)
    assert len({plan.model_id for plan in plans}) == 12
    assert {(p.factors["learning_rate"], p.factors["label_noise"], p.seed) for p in plans} == {
        (rate, noise, seed)
        for rate in VALUES["learning_rate"]
        for noise in VALUES["label_noise"]
        for seed in (0, 1)
    }


@given(st.integers(1, 6), st.integers(0, 100))
def test_a_sample_has_no_repetitions_and_follows_its_seed(num_samples: int, seed: int) -> None:
    grid = FactorGrid(kind="sampled", values=VALUES, num_samples=num_samples, seed=seed)
    rows = expand_factors(grid)
    assert len({tuple(row.items()) for row in rows}) == num_samples
    assert rows == expand_factors(grid)
    assert all(row in expand_factors(FactorGrid(values=VALUES)) for row in rows)


def test_a_sample_larger_than_its_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most the 6 combinations there are, got 7"):
        expand_factors(FactorGrid(kind="sampled", values=VALUES, num_samples=7))


def test_listed_rows_are_taken_as_they_stand() -> None:
    rows = ({"learning_rate": 0.1}, {"activation": "tanh"})
    grid = replace(GRID, factors=FactorGrid(kind="listed", rows=rows), seeds=(0,))
    first, second = plan_population(grid, None)
    assert (first.factors["learning_rate"], first.sizes["activation"]) == (0.1, "relu")
    assert (second.factors["learning_rate"], second.sizes["activation"]) == (1e-3, "tanh")
    assert second.varied == ("activation",)


def test_ids_come_from_what_decides_the_weights_and_from_nothing_else() -> None:
    ids = [plan.model_id for plan in plan_population(GRID, None)]
    same = replace(GRID, name="other", keep_epochs=())
    assert ids == [plan.model_id for plan in plan_population(same, None)]
    for change in ({"batch_size": 8}, {"num_epochs": 9}, {"sizes": {"hidden_sizes": (8,)}}):
        changed = plan_population(replace(GRID, **change), None)
        assert not set(ids) & {plan.model_id for plan in changed}


def test_every_n_th_model_keeps_its_checkpoints() -> None:
    kept = [plan.keep_epochs for plan in plan_population(GRID, None)]
    assert kept == [(1,), (), ()] * 4


@pytest.mark.parametrize(("per_parent", "expected"), [(0, 8), (1, 4), (2, 8)])
def test_fine_tunes_hang_off_parents_spread_over_the_grid(per_parent: int, expected: int) -> None:
    parents = plan_population(GRID, None)
    stage = GridConfig(
        name="b",
        architecture="mlp",
        dataset="digits-shifted",
        factors=FactorGrid(values={"learning_rate": (1e-4, 1e-3)}),
        parent=ParentConfig(population="a", num_parents=4, per_parent=per_parent),
    )
    plans = plan_population(stage, parents)
    assert len(plans) == expected
    names = dict.fromkeys(plan.parent.name for plan in plans if plan.parent is not None)
    assert list(names) == [parents[index].name for index in (0, 3, 6, 9)]
    assert {plan.factors["learning_rate"] for plan in plans} == {1e-4, 1e-3}
    assert all(plan.root is plan.parent for plan in plans)


def test_an_unknown_factor_is_refused_with_the_closest_name() -> None:
    grid = replace(GRID, factors=FactorGrid(values={"learning_rat": (1.0,)}))
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        plan_population(grid, None)
    grid = replace(GRID, factors=FactorGrid(values={"optimizer": ("adamax",)}))
    with pytest.raises(
        ConfigError, match="optimizer must be one of adam, adamw, sgd, got 'adamax'"
    ):
        plan_population(grid, None)
    grid = replace(GRID, factors=FactorGrid(values={"label_noise": (2.0,)}))
    with pytest.raises(ConfigError, match=r"label_noise must lie in \[0\.0, 1\.0\], got 2\.0"):
        plan_population(grid, None)


def test_the_same_model_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="hold the same model"):
        plan_zoo(ZooConfig(name="z", populations=(GRID, replace(GRID, name="b"))))


def test_a_fine_tune_cannot_change_its_parents_sizes() -> None:
    stage = replace(
        GRID, name="b", sizes={"activation": "tanh"}, parent=ParentConfig(population="a")
    )
    with pytest.raises(ConfigError, match="has its parents' sizes"):
        plan_zoo(ZooConfig(name="z", populations=(GRID, stage)))


def test_the_demo_zoo_has_five_families_with_enough_roots_for_splits() -> None:
    plans = [plan for part in plan_zoo(zoo_config("demo")).values() for plan in part]
    repos = sum(1 + len(plan.keep_epochs) for plan in plans)
    assert 150 <= repos <= 300
    for family in ("mlp", "cnn", "vit", "bert", "gpt2"):
        members = [plan for plan in plans if plan.architecture == family]
        assert sum(1 + len(plan.keep_epochs) for plan in members) >= 30
        assert len({plan.root.name for plan in members}) >= 12
        assert any(plan.parent for plan in members)
        assert any(plan.keep_epochs for plan in members)
