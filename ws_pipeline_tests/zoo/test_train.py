import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.zoo import train
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, ZooConfig
from ws_pipeline.zoo.index import INDEX_SCHEMA
from ws_pipeline.zoo.train import read_summary, train_zoo

SIZES = {"hidden_sizes": (8,)}
BASE = GridConfig(
    name="base",
    architecture="mlp",
    dataset="digits",
    sizes=SIZES,
    factors=FactorGrid(values={"learning_rate": (1e-3, 1e-2)}),
    num_epochs=1,
    keep_epochs=(0,),
    keep_every=2,
)
CHILD = GridConfig(
    name="child",
    architecture="mlp",
    dataset="digits-low",
    num_epochs=1,
    parent=ParentConfig(population="base", new_head=True),
)
ZOO = ZooConfig(name="small", populations=(BASE, CHILD))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "repos").rglob("*"))
        if path.is_file()
    }


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def forbid_training(*_: object, **__: object) -> None:
    pytest.fail("trained again")


def test_a_zoo_is_repos_an_index_and_a_summary(tmp_path: Path) -> None:
    summary = train_zoo(ZOO, tmp_path)
    index = pl.read_parquet(tmp_path / "index.parquet")
    assert index.schema == pl.Schema(INDEX_SCHEMA)
    assert sorted(index["name"]) == sorted(path.name for path in (tmp_path / "repos").iterdir())
    for repo in (tmp_path / "repos").iterdir():
        assert sorted(path.name for path in repo.iterdir()) == [
            "README.md",
            "config.json",
            "model.safetensors",
        ]
    assert (summary.num_models, summary.num_trained, summary.num_diverged) == (5, 4, 0)
    assert summary.families == {"mlp": 5}
    assert json.loads((tmp_path / "summary.json").read_text())["digest"] == ZOO.digest
    assert read_summary(tmp_path) == replace(summary, reused=True)


def test_the_same_config_gives_the_same_bytes_whatever_runs_beside_it(tmp_path: Path) -> None:
    train_zoo(ZOO, tmp_path / "a", num_workers=1)
    train_zoo(ZOO, tmp_path / "b", num_workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_complete_folder_is_reused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_zoo(ZOO, tmp_path)
    before = times(tmp_path)
    monkeypatch.setattr(train, "train_stack", forbid_training)
    again = train_zoo(ZOO, tmp_path)
    assert again == replace(first, reused=True)
    assert times(tmp_path) == before


def test_a_stopped_run_keeps_its_finished_populations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    train_zoo(ZOO, whole)
    trained: list[str] = []
    real = train.train_stack

    def stop_at_child(plans, *args, **kwargs):  # type: ignore[no-untyped-def]
        if plans[0].population == "child":
            raise KeyboardInterrupt
        trained.append(plans[0].population)
        return real(plans, *args, **kwargs)

    folder = tmp_path / "stopped"
    monkeypatch.setattr(train, "train_stack", stop_at_child)
    with pytest.raises(KeyboardInterrupt):
        train_zoo(ZOO, folder)
    assert trained == ["base"]
    assert read_summary(folder) is None
    kept = times(folder / "repos")
    monkeypatch.setattr(train, "train_stack", real)
    assert not train_zoo(ZOO, folder).reused
    assert contents(folder) == contents(whole)
    assert times(folder / "repos").items() >= kept.items()


def test_a_failure_stops_the_populations_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = replace(BASE, name="long", num_epochs=100_000, keep_epochs=())
    real = train.train_stack

    def fail_at_base(plans, *args, **kwargs):  # type: ignore[no-untyped-def]
        if plans[0].population == "base":
            raise ValueError("broken")
        return real(plans, *args, **kwargs)

    monkeypatch.setattr(train, "train_stack", fail_at_base)
    with pytest.raises(ValueError, match="broken"):
        train_zoo(ZooConfig(name="z", populations=(long, BASE)), tmp_path)


def test_a_repo_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    train_zoo(ZOO, tmp_path)
    before = contents(tmp_path)
    victim = min((tmp_path / "repos").iterdir())
    shutil.rmtree(victim)
    assert not train_zoo(ZOO, tmp_path).reused
    assert contents(tmp_path) == before


def test_a_changed_config_retrains_what_changed_and_forgets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_zoo(ZOO, tmp_path)
    monkeypatch.setattr(train, "train_stack", forbid_training)
    summary = train_zoo(replace(ZOO, populations=(BASE,)), tmp_path)
    assert summary.num_models == 3
    assert len(list((tmp_path / "repos").iterdir())) == 3


def test_files_that_do_not_change_are_not_written_again(tmp_path: Path) -> None:
    train_zoo(ZOO, tmp_path)
    before = times(tmp_path / "repos")
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "populations")
    train_zoo(ZOO, tmp_path)
    assert times(tmp_path / "repos") == before


def test_a_diverged_model_is_a_row_without_a_repo_and_so_are_its_children(tmp_path: Path) -> None:
    wild = replace(BASE, factors=FactorGrid(values={"learning_rate": (1e-2, 1e30)}), keep_epochs=())
    summary = train_zoo(ZooConfig(name="wild", populations=(wild, CHILD)), tmp_path)
    index = pl.read_parquet(tmp_path / "index.parquet")
    assert sorted(index["status"]) == ["diverged", "parent_diverged", "trained", "trained"]
    assert (summary.num_models, summary.num_diverged) == (2, 1)
    assert len(list((tmp_path / "repos").iterdir())) == 2
    assert index.filter(pl.col("status") == "diverged")["diverged_epoch"].to_list() == [1]


def test_a_new_head_has_the_new_number_of_labels(tmp_path: Path) -> None:
    train_zoo(ZOO, tmp_path)
    index = pl.read_parquet(tmp_path / "index.parquet").filter(pl.col("stage") == "finetune")
    for name in index["name"]:
        config = json.loads((tmp_path / "repos" / name / "config.json").read_text())
        assert config["num_labels"] == 5
