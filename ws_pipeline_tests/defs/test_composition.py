from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from ws_pipeline.defs.assets.composition import COMPOSITION, composition
from ws_pipeline.defs.assets.corpus import SPLITS
from ws_pipeline.defs.io_managers import ParquetIOManager
from ws_pipeline.defs.resources import HomeResource, MlflowResource, StoreResource
from ws_pipeline.studies import composition as plan
from ws_pipeline.studies.composition import BASELINE
from ws_pipeline_tests.studies.small_study import build_labelled_corpus, quick_recipe


def materialize(home: Path, max_cells: int) -> dg.ExecuteInProcessResult:
    at = HomeResource(path=str(home))
    store = StoreResource(home=at)
    return dg.materialize(
        [composition, dg.AssetSpec(SPLITS)],
        resources={
            "home": at,
            "store": store,
            "mlflow": MlflowResource(home=at),
            "io_manager": ParquetIOManager(store=store),
        },
        run_config={"ops": {"evaluation__composition": {"config": {"max_cells": max_cells}}}},
    )


def test_the_asset_makes_what_is_missing_and_shows_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, corpus = build_labelled_corpus(tmp_path)
    store.tables.write("corpus/splits", corpus)
    monkeypatch.setattr(plan, "SEEDS", (0,))
    monkeypatch.setattr(plan, "shorten", lambda *_, **__: quick_recipe(num_steps=1))
    done = materialize(tmp_path, max_cells=2)
    made = done.asset_materializations_for_node("evaluation__composition")[0]
    assert made.asset_key == COMPOSITION
    assert made.metadata["num_cells"].value == 8
    # No family has more than 16 models here: three variants are one cell, and three another.
    assert made.metadata["num_done"].value == 6
    assert BASELINE in str(made.metadata["table"].value)
    for name in ("figure", "curves"):
        assert Path(str(made.metadata[name].value)).is_file()
    table = store.tables.scan("evaluation/composition").collect()
    assert BASELINE in set(table["features"])
    slices = {"all", "zoos", "hub", "in distribution", "out of distribution", "within family-0"}
    assert set(table.filter(pl.col("target") == "weights")["slice"]) <= slices
