"""Cells are really trained here, on models of a few hundred weights."""

from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from ws_pipeline.backbone import loop
from ws_pipeline.errors import MissingInputError, RefusedError
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.present import markdown
from ws_pipeline.studies.run import StudyResult, read_corpus, run_study
from ws_pipeline.studies.study import Study
from ws_pipeline_tests.studies.small_study import build_labelled_corpus, quick_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Store, pl.DataFrame, Path]:
    root = tmp_path_factory.mktemp("study")
    store, corpus = build_labelled_corpus(root)
    uri = f"sqlite:///{root / 'mlflow.db'}"
    result = run_study(quick_study(), home=root, store=store, corpus=corpus, tracking_uri=uri)
    return result, store, corpus, root


def test_every_cell_is_made_and_measured(
    made: tuple[StudyResult, Store, pl.DataFrame, Path],
) -> None:
    result, _, corpus, _ = made
    assert (result.num_cells, result.num_done, result.num_made) == (3, 3, 3)
    table = {row["variant"]: row for row in result.table.iter_rows(named=True)}
    assert (table["all"]["seeds"], table["one family"]["seeds"]) == (2, 1)
    train = corpus.filter(pl.col("split") == "train")
    assert table["all"]["num_train_models"] == train.height
    own = (train["family"] == "family-0").sum()
    assert table["one family"]["num_train_models"] == own
    for row in table.values():
        assert 0.0 < row["error low"] <= row["error"] <= row["error high"]
        assert row["accuracy R2"] is not None


def test_what_it_was_trained_on_and_not_are_told_apart(
    made: tuple[StudyResult, Store, pl.DataFrame, Path],
) -> None:
    result, _, corpus, _ = made
    test = corpus.filter(pl.col("split") == "test")
    rows = result.results.filter(
        (pl.col("features") == "one family") & (pl.col("target") == "weights")
    )
    counts = dict(rows.select("slice", "num_models").rows())
    own = int((test["family"] == "family-0").sum())
    assert counts == {
        "all": test.height,
        "zoos": own,
        "in distribution": own,
        "out of distribution": test.height - own,
    }


def test_variants_are_compared_with_the_baseline_on_the_same_models_only(
    made: tuple[StudyResult, Store, pl.DataFrame, Path],
) -> None:
    pairs = made[0].results.filter(pl.col("features").str.contains("|", literal=True))
    assert set(pairs["features"]) == {"one family|all"}
    assert set(pairs["slice"]) == {"all", "zoos"}
    assert {"relative_error_difference", "relative_error_ratio", "r2_difference"} == set(
        pairs["metric"]
    )


def test_a_second_run_makes_nothing_and_says_the_same(
    made: tuple[StudyResult, Store, pl.DataFrame, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, store, corpus, root = made
    monkeypatch.setattr(loop.TrainingLoop, "run", None)  # nothing may be trained
    second = run_study(quick_study(), home=root, store=store, corpus=corpus)
    assert second.num_made == 0
    assert second.results.equals(first.results)
    assert second.table.equals(first.table)


def test_another_corpus_is_measured_anew(
    made: tuple[StudyResult, Store, pl.DataFrame, Path], tmp_path: Path
) -> None:
    _, store, corpus, _ = made
    fewer = corpus.head(corpus.height - 1)
    again = run_study(quick_study(), home=tmp_path, store=store, corpus=fewer, max_cells=0)
    assert (again.num_done, again.num_made) == (0, 0)
    assert "No cell was made yet" in (again.folder / "table.md").read_text()


def test_an_interrupted_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store, corpus = build_labelled_corpus(tmp_path)
    told: list[tuple[str, int, str]] = []

    def run(max_cells: int | None) -> StudyResult:
        return run_study(
            quick_study(),
            home=tmp_path,
            store=store,
            corpus=corpus,
            max_cells=max_cells,
            on_cell=lambda cell, state, *_: told.append((cell.variant.name, cell.seed, state)),
        )

    assert run(1).num_done == 1
    assert run(1).num_done == 2
    assert told == [("all", 0, "made"), ("all", 0, "kept"), ("one family", 0, "made")]
    assert not list((tmp_path / "studies" / "runs").glob("*"))  # trainings are cleared away


def test_one_variant_can_be_asked_for(tmp_path: Path) -> None:
    store, corpus = build_labelled_corpus(tmp_path)
    result = run_study(quick_study(), home=tmp_path, store=store, corpus=corpus, only="one *")
    assert result.table["variant"].to_list() == ["one family"]


def test_table_and_figure_lie_in_the_studys_folder(
    made: tuple[StudyResult, Store, pl.DataFrame, Path],
) -> None:
    folder = made[0].folder
    text = (folder / "table.md").read_text()
    assert text.startswith("# Does it run?")
    assert markdown(made[0].table) in text
    assert "one family" in (folder / "figure.svg").read_text()
    assert pl.read_parquet(folder / "results.parquet").equals(made[0].results)


def test_mlflow_has_a_run_for_each_cell_tagged_by_what_was_varied(
    made: tuple[StudyResult, Store, pl.DataFrame, Path],
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{made[3] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("quick")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    found = sorted((run.data.tags["variant"], run.data.tags["seed"]) for run in runs)
    assert found == [("all", "0"), ("all", "1"), ("one family", "0")]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert 0.0 < run.data.metrics["test/relative_error_median"] < 10.0
        assert run.data.tags["families"] in {"1", "2"}


def test_a_study_at_work_is_not_started_twice(tmp_path: Path) -> None:
    store, corpus = build_labelled_corpus(tmp_path, 12)
    folder = tmp_path / "studies" / "quick"
    folder.mkdir(parents=True)
    with (
        FileLock(folder / "study.lock"),
        pytest.raises(RefusedError, match="Another process works at the study"),
    ):
        run_study(quick_study(), home=tmp_path, store=store, corpus=corpus)


def test_a_home_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="run ws-pipeline demo"):
        read_corpus(Store.open(tmp_path / "store"))


def test_a_population_that_is_not_there_is_refused(tmp_path: Path) -> None:
    store, corpus = build_labelled_corpus(tmp_path, 12)
    study = quick_study()
    renamed = corpus.with_columns(family=pl.lit("other"))
    lonely = Study(name="x", question="?", variants=study.variants[1:], baseline="one family")
    with pytest.raises(MissingInputError, match="trains on models of family-0"):
        run_study(lonely, home=tmp_path, store=store, corpus=renamed)
