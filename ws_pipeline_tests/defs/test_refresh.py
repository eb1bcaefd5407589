import dataclasses
import json
import shutil
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from ws_pipeline.defs import operations
from ws_pipeline.defs.assets import tokens, weights
from ws_pipeline.defs.assets.hub import HEADERS, REPOS
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.instance import open_instance
from ws_pipeline.defs.operations import RefreshResult
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.selection import SelectionPolicy
from ws_pipeline.recipes import catalog
from ws_pipeline.storage.store import Store
from ws_pipeline.zoo.oddities import write_oddities
from ws_pipeline_tests.defs.small_hub import write_repo

STAGES = ("hub/headers", "hub/selection", "hub/files", "weights/layers", "tokens/shards")


def states(result: RefreshResult, state: str = "done") -> dict[tuple[str, str], int]:
    return {(o.asset, o.partition): o.num_processed for o in result.outcomes if o.state == state}


def materialisations(home: Path, key: dg.AssetKey) -> int:
    with open_instance(home) as instance:
        return len(instance.fetch_materializations(key, limit=100).records)


def test_the_first_refresh_takes_every_repo_to_tokens(
    first_refresh: tuple[Path, RefreshResult],
) -> None:
    home, result = first_refresh
    assert not result.failed
    done = states(result)
    assert {done[stage, family] for stage in STAGES for family in ("mlp", "cnn")} == {3}
    assert done["corpus/splits", ""] == 6
    assert (result.num_models, result.left_out) == (6, {})
    ledger = Ledger(store=Store.open(home / "store"))
    assert ledger.read("mlp")["status"].to_list() == ["in_corpus"] * 3


def test_what_each_asset_was_made_from_stands_in_its_tags(
    first_refresh: tuple[Path, RefreshResult],
) -> None:
    with open_instance(first_refresh[0]) as instance:
        (record,) = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=HEADERS, asset_partitions=["mlp"]), limit=1
        ).records
    made = record.asset_materialization
    assert made is not None
    assert made.tags is not None
    assert made.tags["dagster/code_version"]
    assert made.tags["dagster/input_data_version/hub/repos"]
    assert len(made.tags["ws/input_digest"]) == 16
    assert made.metadata["dagster/row_count"].value == 3
    assert "nothing was refused" in str(made.metadata["drop_reasons"].value)


def test_an_unchanged_hub_makes_nothing_again(refreshed: Path) -> None:
    copied = operations.refresh(refreshed)  # the copies of the files are younger than the files
    assert copied.num_processed == 0
    assert set(states(copied)) <= {("hub/repos", "mlp"), ("hub/repos", "cnn")}
    crawls = materialisations(refreshed, REPOS)
    again = operations.refresh(refreshed)
    assert states(again) == {}
    assert materialisations(refreshed, SHARDS) == 2
    assert materialisations(refreshed, REPOS) == crawls


def test_what_is_new_is_all_that_is_worked_on(refreshed: Path) -> None:
    write_repo(refreshed / "hub", "mlp", 9)
    done = states(operations.refresh(refreshed))
    assert {done[stage, "mlp"] for stage in STAGES} == {1}
    assert not any((stage, "cnn") in done for stage in STAGES)
    assert done["corpus/splits", ""] == 1


def test_what_changes_and_what_goes_away_moves_its_own_family_alone(refreshed: Path) -> None:
    (refreshed / "hub/lab/cnn-1/README.md").write_text("---\nlicense: mit\n---\nEdited.\n")
    shutil.rmtree(refreshed / "hub/lab/cnn-2")
    done = states(operations.refresh(refreshed, families=["cnn", "mlp"]))
    assert done["hub/headers", "cnn"] == 1
    assert ("hub/headers", "mlp") not in done
    store = Store.open(refreshed / "store")
    corpus = store.tables.scan("corpus/splits").collect()
    assert "lab/cnn-2" not in corpus["repo_id"].to_list()
    ledger = Ledger(store=store).read("cnn").sort("repo_id")
    assert ledger["status"].to_list() == ["in_corpus", "in_corpus", "deleted"]


def test_a_repo_that_cannot_go_through_ends_with_its_reason_and_the_rest_goes_on(
    home: Path,
) -> None:
    broken = home / "hub/lab/mlp-0/model.safetensors"
    broken.write_bytes(broken.read_bytes()[:40])
    (home / "hub/lab/mlp-1/model.safetensors").rename(home / "hub/lab/mlp-1/pytorch_model.bin")
    write_oddities(home / "hub", home / "hub/lab/mlp-2")
    result = operations.refresh(home, families=["mlp"])
    assert not result.failed
    ledger = Ledger(store=Store.open(home / "store")).read("mlp")
    assert dict(ledger.select("repo_id", "reason").rows()) == {
        "lab/mlp-0": "header_truncated",
        "lab/mlp-1": "pickle_only",
        "lab/mlp-2": "",
        "oddities/broken-file": "header_truncated",
        "oddities/gated": "gated",
        "oddities/nan-weights": "non_finite_weights",
        "oddities/pickle-only": "pickle_only",
    }
    assert states(result)["corpus/splits", ""] == 1


def test_a_changed_policy_reruns_selection_and_what_follows(
    refreshed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picky = dataclasses.replace(
        catalog.recipe("tiny"), selection=SelectionPolicy(min_params=10_000_000)
    )
    monkeypatch.setattr(catalog, "RECIPES", {**catalog.RECIPES, "tiny": lambda: picky})
    done = states(operations.refresh(refreshed, families=["mlp"]))
    assert ("hub/headers", "mlp") not in done
    assert ("hub/selection", "mlp") in done
    ledger = Ledger(store=Store.open(refreshed / "store")).read("mlp")
    assert set(ledger["reason"]) == {"too_small"}


def test_a_family_that_fails_says_why_and_does_not_stop_the_others(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = weights.plan_family

    def fail_on_mlp(store: Store, files: pl.DataFrame) -> pl.DataFrame:
        if files["repo_id"].str.contains("mlp").any():
            raise RuntimeError("made to fail")
        return real(store, files)

    monkeypatch.setattr(weights, "plan_family", fail_on_mlp)
    result = operations.refresh(home)
    failed = {(o.asset, o.partition): o.detail for o in result.failed}
    assert failed["weights/layers", "mlp"] == "RuntimeError: made to fail"
    assert ("tokens/shards", "cnn") in states(result)
    assert states(result)["corpus/splits", ""] == 3


def test_a_scan_tells_what_is_new_and_a_dry_one_writes_nothing(home: Path) -> None:
    dry = operations.scan(home, dry_run=True)
    assert (dry.num_new, dry.num_listed, dry.families) == (6, 6, ("cnn", "mlp"))
    assert not (home / "store").exists()
    assert not (home / "dagster").exists()
    real = operations.scan(home)
    assert (real.num_new, real.new_families) == (6, ("cnn", "mlp"))
    write_repo(home / "hub", "mlp", 7)
    (home / "hub/lab/cnn-0/config.json").write_text(json.dumps({"model_type": "cnn", "x": 1}))
    again = operations.scan(home)
    assert (again.num_new, again.num_changed, again.new_families) == (1, 1, ())


def test_tables_that_fail_a_blocking_check_stay_out_of_the_corpus_until_made_again(
    refreshed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tokens.pack_family

    def forget_one(store: Store, layers: pl.DataFrame) -> pl.DataFrame:
        return real(store, layers).head(-1)

    write_repo(refreshed / "hub", "mlp", 9)
    monkeypatch.setattr(tokens, "pack_family", forget_one)
    result = operations.refresh(refreshed)
    failed = {(o.asset, o.partition): o.detail for o in result.failed}
    assert "every_repo_is_judged failed" in failed["tokens/shards", "mlp"]
    assert "did not pass on tokens/shards[mlp]" in failed["corpus/splits", ""]
    assert Store.open(refreshed / "store").tables.scan("corpus/splits").collect().height == 6

    monkeypatch.undo()
    mended = operations.refresh(refreshed)
    assert not mended.failed
    assert states(mended)["corpus/splits", ""] == 1
