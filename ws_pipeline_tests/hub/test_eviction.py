"""Files go when the disk is full and their tokens are made, and only then."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.hub.download import download_family
from ws_pipeline.hub.eviction import DiskBudget, StoredFile, choose_evictions, list_stored_files
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.hub.scripted_hub import connect, make_weights, write_repo
from ws_pipeline_tests.hub.test_download import prepare


def stored(name: str, num_bytes: int, *, is_needed: bool = False) -> StoredFile:
    return StoredFile(sha256=name, num_bytes=num_bytes, is_needed=is_needed)


def choose(files: list[StoredFile], budget: int, wanted: int) -> list[str]:
    return [
        file.sha256 for file in choose_evictions(files, budget_bytes=budget, wanted_bytes=wanted)
    ]


def test_the_largest_idle_files_go_until_the_new_one_fits() -> None:
    files = [stored("a", 10), stored("b", 50, is_needed=True), stored("c", 30), stored("d", 30)]
    assert choose(files, 130, 10) == []
    assert choose(files, 120, 10) == ["c"]
    assert choose(files, 120, 50) == ["c", "d"]
    assert choose(files, 120, 70) == ["c", "d", "a"]


def test_nothing_goes_in_vain() -> None:
    assert choose([stored("a", 10), stored("b", 50, is_needed=True)], 60, 20) == []


FILES = st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=8)


@given(FILES, st.integers(0, 60), st.integers(0, 20))
def test_what_goes_is_idle_enough_and_no_more_than_it_takes(
    kinds: list[tuple[int, bool]], budget: int, wanted: int
) -> None:
    files = [
        stored(f"{number}", size, is_needed=is_needed)
        for number, (size, is_needed) in enumerate(kinds)
    ]
    chosen = choose_evictions(files, budget_bytes=budget, wanted_bytes=wanted)
    kept = [file for file in files if file not in chosen]
    assert not any(file.is_needed for file in chosen)
    if chosen:
        assert sum(file.num_bytes for file in kept) + wanted <= budget
        assert sum(file.num_bytes for file in [*kept, chosen[-1]]) + wanted > budget


Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]


def fill(hub_folder: Path, endpoint: str, store: Store, num_repos: int) -> Tables:
    for number in range(num_repos):
        write_repo(hub_folder, f"zoo/m{number}", weights=make_weights(number), created=number)
    return prepare(endpoint, store)


MODEL_BYTES = len(make_weights()) + 100
"""Weights and config.json of one model."""


def test_a_run_stays_within_the_budget_and_the_next_goes_on_when_tokens_are_made(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    tables = fill(hub_folder, endpoint, store, 3)
    done: set[str] = set()

    def run() -> pl.DataFrame:
        budget = DiskBudget(
            store,
            max_bytes=2 * MODEL_BYTES,
            is_done=lambda hub_id, _revision: hub_id in done,
        )
        return download_family(connect(endpoint), store, *tables, budget=budget)

    first = run()
    assert sorted(first["reason"]) == ["", "", "no_space"]
    assert run()["reason"].equals(first["reason"])  # no tokens: nothing moves
    done |= set(first.filter("accepted")["hub_id"])
    assert run()["accepted"].all()
    files = list_stored_files(store, lambda *_: False)
    assert sum(file.num_bytes for file in files) <= 2 * MODEL_BYTES


def test_evicted_files_are_fetched_again_when_they_are_needed_again(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    tables = fill(hub_folder, endpoint, store, 1)
    download_family(connect(endpoint), store, *tables)
    (file,) = [f for f in list_stored_files(store, lambda *_: True) if f.num_bytes > 500]
    store.blobs.remove(file.sha256)
    done = DiskBudget(None, is_done=lambda *_: True)
    assert download_family(connect(endpoint), store, *tables, budget=done)["reused"].all()
    assert not store.blobs.exists(file.sha256)
    assert not download_family(connect(endpoint), store, *tables)["reused"].any()
    assert store.blobs.exists(file.sha256)


def test_a_file_of_two_revisions_stays_while_one_needs_it(store: Store) -> None:
    ref = store.blobs.put_bytes(b"x")
    for hub_id in ("a", "b"):
        manifest = {"hub_id": hub_id, "revision": "r", "files": [{"sha256": ref.sha256}]}
        store.manifests.create(f"files/{hub_id}/r/1", manifest)
    for done, is_needed in (({"a"}, True), ({"a", "b"}, False)):
        (file,) = list_stored_files(store, lambda hub_id, _, done=done: hub_id in done)
        assert file.is_needed == is_needed


def test_a_file_above_the_whole_budget_is_refused_for_its_size(store: Store) -> None:
    budget = DiskBudget(store, max_bytes=100)
    with pytest.raises(RefusedError, match="larger than the whole budget of 100 bytes") as caught:
        budget.reserve(101)
    assert caught.value.reason is Reason.FILE_TOO_LARGE


def test_a_kept_blob_does_not_go_before_its_new_owner_is_recorded(store: Store) -> None:
    ref = store.blobs.put_bytes(b"x" * 80)
    manifest = {"hub_id": "h", "revision": "r", "files": [{"sha256": ref.sha256}]}
    store.manifests.create("files/h/r/1", manifest)
    budget = DiskBudget(store, max_bytes=100, is_done=lambda *_: True)
    assert budget.keep(store, ref.sha256)
    with pytest.raises(RefusedError, match="whose tokens are not made yet"):
        budget.reserve(50)
    assert store.blobs.exists(ref.sha256)
    DiskBudget(store, max_bytes=100, is_done=lambda *_: True).reserve(50)
    assert not store.blobs.exists(ref.sha256)
