from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError
from ws_pipeline.studies.study import Population, Study, name_datasets
from ws_pipeline_tests.studies.small_study import quick_study


def models(sizes: dict[str, int]) -> pl.DataFrame:
    rows = [(f"{family}-{i}", family) for family, size in sizes.items() for i in range(size)]
    return pl.DataFrame(rows, schema=["hub_id", "family"], orient="row")


SIZES = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1)


@given(sizes=SIZES, small=st.integers(1, 20), more=st.integers(0, 20))
def test_a_smaller_population_is_part_of_a_larger_one(
    sizes: dict[str, int], small: int, more: int
) -> None:
    rows = models(sizes)
    inner = set(Population(num_models=small).choose(rows)["hub_id"])
    outer = set(Population(num_models=small + more).choose(rows)["hub_id"])
    assert inner <= outer
    assert len(inner) == min(small, rows.height)


@given(sizes=SIZES, number=st.integers(1, 20))
def test_models_are_taken_as_evenly_over_families_as_they_allow(
    sizes: dict[str, int], number: int
) -> None:
    chosen = Population(num_models=number).choose(models(sizes))
    counts = dict.fromkeys(sizes, 0) | dict(chosen["family"].value_counts().rows())
    for family, count in counts.items():
        assert count == sizes[family] or count >= max(counts.values()) - 1


def test_models_are_taken_evenly_over_the_data_sets_that_are_named() -> None:
    rows = models({"a": 12, "b": 4}).with_columns(
        dataset=pl.Series(["one"] * 9 + ["two"] * 3 + ["one"] * 2 + ["other"] * 2)
    )
    chosen = Population(datasets=("one", "two"), num_models=6).choose(rows)
    counts = chosen.group_by("family", "dataset").len().sort("family", "dataset")
    assert counts.rows() == [("a", "one", 2), ("a", "two", 2), ("b", "one", 2)]


def test_a_population_covers_the_kinds_that_it_names() -> None:
    rows = pl.DataFrame({"family": ["a", "a", "b"], "dataset": ["one", "two", "one"]})
    for population, places in (
        (Population(), [0, 1, 2]),
        (Population(families=("a",)), [0, 1]),
        (Population(families=("a",), datasets=("one",)), [0]),
    ):
        covered = rows.with_row_index("place").filter(population.covers())
        assert covered["place"].to_list() == places


def test_the_data_set_is_what_the_card_says() -> None:
    cards = ['{"generating_factors": {"dataset": "digits"}}', '{"datasets": ["mnist"]}', None]
    named = name_datasets(pl.DataFrame({"card": cards}, schema={"card": pl.String}))
    assert named["dataset"].to_list() == ["digits", "mnist", ""]


def test_a_population_keeps_to_its_families_and_the_rows_order() -> None:
    rows = models({"a": 5, "b": 5, "c": 5})
    chosen = Population(families=("c", "a"), num_models=6).choose(rows)
    assert set(chosen["family"]) == {"a", "c"}
    assert chosen["hub_id"].to_list() == [n for n in rows["hub_id"] if n in set(chosen["hub_id"])]
    assert Population().choose(rows).equals(rows)


def test_the_first_seed_of_every_variant_comes_first() -> None:
    cells = [(cell.variant.name, cell.seed) for cell in quick_study().cells()]
    assert cells == [("all", 0), ("one family", 0), ("all", 1)]


def test_a_cell_trains_its_recipe_with_its_seed() -> None:
    last = list(quick_study().cells())[-1]
    assert last.recipe.training.seed == 1
    assert last.variant.recipe.training.seed == 0


def test_a_study_without_its_baseline_is_refused() -> None:
    study = quick_study()
    with pytest.raises(ConfigError, match="baselines nobody must be among them"):
        Study(name="x", question="?", variants=study.variants, baseline="nobody")
    lost = (*study.variants, replace(study.variants[0], name="third", compared_with="nobody"))
    with pytest.raises(ConfigError, match="baselines all, nobody must be among them"):
        Study(name="x", question="?", variants=lost, baseline="all")
    with pytest.raises(ConfigError, match="names of their own"):
        Study(name="x", question="?", variants=study.variants[:1] * 2, baseline="all")
