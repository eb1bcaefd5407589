"""The driver's crawl of a whole hub that changes, and what it does with other drivers and kills."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ws_pipeline.defs import operations
from ws_pipeline.defs.assets.hub import FILES_POOL, REPOS
from ws_pipeline.defs.home_lock import lock_home
from ws_pipeline.defs.instance import (
    DAGSTER_YAML,
    POOL_LIMITS,
    open_instance,
    prepare_instance,
)
from ws_pipeline.errors import MissingInputError, Reason, RefusedError
from ws_pipeline.hub import scan_book
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.defs.processes import wait_for, write_script
from ws_pipeline_tests.defs.small_hub import write_hub, write_repo
from ws_pipeline_tests.hub.scan_hubs import serve
from ws_pipeline_tests.hub.scripted_hub import TOKEN, ScriptedHub


def crawls(home: Path) -> int:
    with open_instance(home) as instance:
        return len(instance.fetch_materializations(REPOS, limit=1000).records)


@pytest.mark.slow
def test_a_hub_of_thousands_that_changes_is_followed_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)  # private repos are listed too
    hub = SimulatedHub(3000, seed=5, num_families=3, share_hostile=0.0)
    ledger = Ledger(store=Store.open(tmp_path / "store"))
    with serve(hub) as endpoint:
        first = operations.scan(tmp_path, endpoint=endpoint)
        assert (first.num_new, first.num_listed) == (3000, 3000)
        hub.advance(60)
        second = operations.scan(tmp_path, endpoint=endpoint)
        alive = sum(ScanBook.of(ledger.store, endpoint).families().values())
        before = crawls(tmp_path)
        third = operations.scan(tmp_path, endpoint=endpoint)
    assert 0 < second.num_new + second.num_changed + second.num_gone <= 60
    listed = sorted(hub.oldest_first())
    assert second.num_listed == alive == third.num_listed == len(listed)
    rows = {
        row["repo_id"]: row["revision"]
        for name in ledger.families()
        for row in ledger.read_repos(name).to_dicts()
        if row["status"] == "listed"
    }
    assert rows == {
        row["id"]: row["sha"]
        for row in map(hub.row, listed)
        if row["id"] in rows  # broken and disabled ones are refused
    }
    assert len(rows) > 0.99 * alive
    assert (third.num_new, third.num_changed, third.num_gone) == (0, 0, 0)
    assert crawls(tmp_path) == before


def test_a_hub_that_lost_half_of_its_repos_is_believed_after_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_book, "MIN_GONE", 10)
    with serve(SimulatedHub(60, seed=5, num_families=1)) as endpoint:
        operations.scan(tmp_path, endpoint=endpoint)
    with serve(SimulatedHub(30, seed=5, num_families=1)) as other:
        store = Store.open(tmp_path / "store")  # the same hub, on another port
        books = tmp_path / "store"
        shutil.move(
            books / ScanBook.of(store, endpoint).root, books / ScanBook.of(store, other).root
        )
        result = operations.scan(tmp_path, endpoint=other)
    assert (result.num_listed, result.num_gone) == (30, 30)


def test_a_second_hub_does_not_disturb_the_book_of_the_first(home: Path) -> None:
    assert operations.scan(home).num_new == 6
    with serve(SimulatedHub(30, seed=5, num_families=2)) as endpoint:
        operations.scan(home, endpoint=endpoint)
    again = operations.scan(home)
    assert again.num_listed == 6
    assert again.num_new == 0


def test_a_deleted_repo_of_a_small_hub_is_gone_with_the_next_scan(home: Path) -> None:
    operations.scan(home)
    shutil.rmtree(home / "hub/lab/cnn-2")
    write_repo(home / "hub", "vit", 1)
    result = operations.scan(home)
    assert (result.num_new, result.num_gone, result.new_families) == (1, 1, ("vit",))
    with open_instance(home) as instance:
        (last,) = instance.get_runs(limit=1)
    assert last.tags["ws/family"] == "vit"
    book = ScanBook.of(Store.open(home / "store"))
    assert int(last.tags["ws/edition"]) == book.editions.last().number


def test_a_dry_run_says_how_much_there_is_to_fetch_and_leaves_the_book_alone(home: Path) -> None:
    operations.scan(home)
    book = ScanBook.of(Store.open(home / "store"))
    before = {key: book.folder.read(key) for key in book.folder.keys("scan")}
    repo_id = write_repo(home / "hub", "mlp", 9)
    dry = operations.scan(home, dry_run=True)
    folder = home / "hub" / repo_id
    num_bytes = sum((folder / name).stat().st_size for name in ("model.safetensors", "config.json"))
    assert dry.forecast is not None
    sizes = dict(dry.forecast.select("repo_id", "num_bytes").iter_rows())
    assert sizes[repo_id] == num_bytes
    assert len(sizes) == 7  # the others were crawled, and are not stored yet
    assert {key: book.folder.read(key) for key in book.folder.keys("scan")} == before
    operations.refresh(home)
    done = operations.scan(home, dry_run=True)
    assert done.forecast is not None
    assert done.forecast.is_empty()


def test_an_empty_hub_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"The hub at .*/hub has no repos yet; put <owner>"):
        operations.refresh(tmp_path)
    with (
        ScriptedHub().serve() as hub,
        pytest.raises(MissingInputError, match=r"The hub at http.* has no repos yet; publish some"),
    ):
        operations.refresh(tmp_path, endpoint=hub.endpoint)


def test_the_drivers_requests_show_the_token_and_share_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with ScriptedHub().serve() as hub:
        operations.scan(tmp_path, endpoint=hub.endpoint)
        operations.scan(tmp_path, endpoint=hub.endpoint, dry_run=True)
        assert {r.headers.get("authorization") for r in hub.requests} == {f"Bearer {TOKEN}"}
    (kept,) = (tmp_path / "budget").iterdir()
    assert TOKEN not in kept.name + kept.read_text()


def test_no_url_stands_in_the_ledger_for_a_gated_repo(home: Path) -> None:
    (home / "hub/lab/mlp-1/.hub.json").write_text('{"gated": "manual"}')
    operations.refresh(home, families=["mlp"])
    rows = Ledger(store=Store.open(home / "store")).read("mlp")
    (detail,) = rows.filter(rows["reason"] == "gated")["detail"]
    assert detail == "The repo is gated; ask for access on the hub and set a token."


HOLDER = """
import pathlib, sys, time
from ws_pipeline.defs.home_lock import lock_home
home = pathlib.Path(sys.argv[1])
with lock_home(home):
    (home / "held").touch()
    time.sleep(60)
"""


def test_a_second_driver_is_refused_in_one_sentence_until_the_first_is_gone(tmp_path: Path) -> None:
    script = write_script(tmp_path, "holder.py", HOLDER)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    try:
        wait_for((tmp_path / "held").exists, seconds=60)
        match = rf"Another ws-pipeline command is at work in .* \(process {process.pid}\); wait"
        with pytest.raises(RefusedError, match=match) as caught:
            operations.refresh(tmp_path)
        assert caught.value.reason is Reason.CONFLICT
        assert not (tmp_path / "dagster").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    with lock_home(tmp_path):
        assert (tmp_path / "driver.lock").read_text() == str(os.getpid())


KILLED_IN_A_POOL = """
import os, pathlib, signal, sys
import ws_pipeline.defs.assets.hub as hub
from ws_pipeline.defs import operations

hub.download_family = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
operations.refresh(pathlib.Path(sys.argv[1]), families=["mlp"])
"""


def test_a_place_in_a_pool_is_free_again_after_a_kill(tmp_path: Path) -> None:
    write_hub(tmp_path / "hub", families=("mlp",), num_repos=1)
    script = write_script(tmp_path, "killed.py", KILLED_IN_A_POOL)
    killed = subprocess.run([sys.executable, str(script), str(tmp_path)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not operations.refresh(tmp_path, families=["mlp"]).failed
    with open_instance(tmp_path) as instance:
        info = instance.event_log_storage.get_concurrency_info(FILES_POOL)
    assert (info.slot_count, info.active_slot_count) == (1, 0)


def test_the_instance_carries_pools_and_limits(tmp_path: Path) -> None:
    with open_instance(tmp_path) as instance:
        storage = instance.event_log_storage
        assert {p.name: p.limit for p in storage.get_pool_limits()}[FILES_POOL] == 1
        assert storage.get_pool_config().default_pool_limit == 4
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert [(limit["key"], limit["limit"]) for limit in queue.tag_concurrency_limits] == [
            ("dagster/partition", 1)
        ]
        assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] == 300
        storage.set_concurrency_slots(FILES_POOL, 2)
    with open_instance(tmp_path) as instance:
        limits = {p.name: p.limit for p in instance.event_log_storage.get_pool_limits()}
    assert limits[FILES_POOL] == 2  # what a user has set stays


def test_a_home_that_no_driver_has_opened_has_the_limits_too(tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(prepare_instance(tmp_path))) as instance:
        limits = {p.name: p.limit for p in instance.event_log_storage.get_pool_limits()}
    assert limits[FILES_POOL] == 1


def test_the_containers_instance_has_the_limits_of_a_homes() -> None:
    folder = Path(__file__).parents[2] / "docker"
    containers = yaml.safe_load((folder / "dagster.yaml").read_text())
    home = yaml.safe_load(DAGSTER_YAML)
    assert containers["concurrency"]["pools"] == home["concurrency"]["pools"]
    limits = "tag_concurrency_limits"
    assert containers["concurrency"]["runs"][limits] == home["concurrency"]["runs"][limits]
    assert containers["run_monitoring"].items() >= home["run_monitoring"].items()
    migrate = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["migrate"]
    for name, limit in POOL_LIMITS.items():
        assert f"dagster instance concurrency set {name} {limit}" in " ".join(migrate["command"])


def test_a_family_that_the_hub_does_not_have_is_refused_and_is_no_partition(home: Path) -> None:
    operations.scan(home, families=["mlp"])
    for ask in (
        lambda: operations.scan(home, families=["mpl"], dry_run=True),
        lambda: operations.scan(home, families=["mpl"]),
        lambda: operations.refresh(home, families=["mlp", "mpl"]),
    ):
        with pytest.raises(MissingInputError, match=r"no repo of family 'mpl'. Did you mean 'mlp'"):
            ask()
    with open_instance(home) as instance:
        assert instance.get_dynamic_partitions("family") == ["mlp"]


def test_a_family_whose_repos_are_all_gone_is_still_one(home: Path) -> None:
    operations.scan(home, families=["mlp"])
    for folder in (home / "hub/lab").glob("mlp-*"):
        shutil.rmtree(folder)
    assert operations.scan(home, families=["mlp"]).num_gone == 3


def test_a_corpus_without_models_is_refused_before_a_training_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (home / "hub").rglob("model.safetensors"):
        path.rename(path.with_name("model.bin"))
    result = operations.refresh(home)
    assert (result.num_models, result.left_out) == (0, {"pickle_only": 6})
    with pytest.raises(MissingInputError, match=r"no model to train on; 0 are .* 6 pickle_only"):
        operations.train(home, recipe_name="tiny")
    assert not (home / "runs").exists()
