"""The simulated hub: what is in it, and that listings of it are sound."""

import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download
from safetensors.numpy import load

from ws_pipeline.errors import HubError, Reason
from ws_pipeline.hub.families import family_of
from ws_pipeline.hub.listing import parse_detail
from ws_pipeline.hub.scan_rows import STATE_MALFORMED, parse_items
from ws_pipeline.hub.server import serve_app_in_thread
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.hub.server.simulation_files import SimulatedFiles
from ws_pipeline.hub.server.simulation_routes import make_simulation_app
from ws_pipeline_tests.hub.scripted_hub import TOKEN, connect


def test_a_seed_is_a_hub() -> None:
    def rows(seed: int) -> list[dict[str, Any]]:
        hub = SimulatedHub(500, seed=seed)
        hub.advance(200)
        return [hub.row(index) for index in hub.oldest_first()]

    assert rows(1) == rows(1)
    assert rows(1) != rows(2)


def test_a_million_repos_are_there_at_once() -> None:
    hub = SimulatedHub(1_000_000, seed=0)
    assert len({hub.row(index)["_id"] for index in (0, 999_998, 999_999)}) == 3
    assert next(hub.recent_first()) == (-1, 999_999)


def test_the_population_has_a_heavy_tail_and_everything_that_a_crawl_has_to_tell_apart() -> None:
    hub = SimulatedHub(2_000, seed=3, num_families=50)
    rows = [hub.row(index) for index in hub.oldest_first()]
    families = Counter(map(family_of, rows))
    assert 40 <= len(families) <= 50
    largest = [count for _, count in families.most_common(10)]
    assert 0.25 < largest[0] / len(rows) < 0.4
    assert sum(largest) / len(rows) > 0.6
    assert min(families.values()) < 20
    tags = Counter(tag.rsplit(":", 1)[0] for row in rows for tag in row["tags"])
    assert 0.08 < tags["base_model:quantized"] / len(rows) < 0.12
    assert 0.25 < tags["pytorch"] / len(rows) < 0.35
    assert 0.02 < sum(row["gated"] is not False for row in rows) / len(rows) < 0.04
    malformed = parse_items(rows).filter(state=STATE_MALFORMED)
    assert 1 <= malformed.height <= 6


def test_both_listings_show_every_repo_once_in_their_order() -> None:
    hub = SimulatedHub(300, seed=5)
    hub.advance(400)
    by_age = list(hub.oldest_first())
    created = [hub.created_at(index) for index in by_age]
    assert created == sorted(created)
    recent = [index for _, index in hub.recent_first()]
    assert sorted(recent) == by_age
    modified = [hub.last_modified(index) for index in recent]
    assert modified == sorted(modified, reverse=True)
    assert all(hub.created_at(i) <= hub.last_modified(i) for i in by_age)
    first = list(islice(hub.recent_first(), 100))
    assert first + list(hub.recent_first(first[-1])) == list(hub.recent_first())


def test_a_hub_client_sees_it() -> None:
    hub = SimulatedHub(130, seed=2)
    hub.advance(60)
    with serve_app_in_thread(make_simulation_app(hub)) as endpoint:
        client = connect(endpoint, token=TOKEN)
        pages = list(client.list_pages(page_size=50))
        assert [len(page.items) for page in pages[:2]] == [50, 50]
        rows = [row for page in pages for row in page.items]
        assert rows == [hub.row(index) for index in hub.oldest_first()]
        recent = [
            row for page in client.list_pages(order="recent", page_size=50) for row in page.items
        ]
        assert recent == [hub.row(index) for _, index in hub.recent_first()]
        assert list(client.list_models()) == rows
        tagged = list(client.list_models(tags=("type0",)))
        assert tagged == [row for row in rows if "type0" in row["tags"]]


def test_details_follow_a_rename_and_end_with_a_deletion() -> None:
    hub = SimulatedHub(50, seed=4)
    hub.advance(200)
    renamed = next(i for i in hub.oldest_first() if hub.state(i).num_renames)
    deleted = next(i for i in range(50) if hub.state(i).is_deleted)
    with serve_app_in_thread(make_simulation_app(hub)) as endpoint:
        client = connect(endpoint)
        info = client.repo_info(hub.name(renamed, 0), hub.sha(renamed))
        assert info["id"] == hub.name(renamed)
        assert parse_detail(info)["files"]
        with pytest.raises(HubError) as caught:
            client.repo_info(hub.name(deleted), hub.sha(deleted))
        assert caught.value.reason is Reason.NOT_FOUND


def find_plain(hub: SimulatedHub, **wanted: bool) -> int:
    """A repo of one safetensors file that is open, but for what is wanted of it."""
    for index in hub.oldest_first():
        kind = hub.kind(index)
        facts = {"gated": bool(hub.gated(index)), "private": hub.is_private(index)}
        facts["disabled"] = hub.is_disabled(index)
        if facts == {"gated": False, "private": False, "disabled": False} | wanted and (
            "model.safetensors" in SimulatedFiles(hub).read(index, hub.state(index).num_pushes)
            and kind.hostile is None
        ):
            return index
    raise AssertionError(wanted)


def test_files_are_what_the_details_say() -> None:
    hub = SimulatedHub(30, seed=6, num_families=4)
    files = SimulatedFiles(hub)
    with serve_app_in_thread(make_simulation_app(hub)) as endpoint:
        client = connect(endpoint, token=TOKEN)
        formats = set()
        for index in hub.oldest_first():
            if hub.is_disabled(index) or hub.kind(index).hostile:
                continue
            where = hub.name(index), hub.sha(index)
            for file in parse_detail(client.repo_info(*where))["files"]:
                digests = {"sha256": file["sha256"], "blob_id": file["blob_id"]}
                data = client.read_file(*where, file["path"], max_bytes=10**6, **digests)
                assert len(data) == file["num_bytes"]
                assert data[5:9] == client.read_range(*where, file["path"], 5, 4)
                formats.add(file["path"].rpartition(".")[2])
    assert formats == {"json", "md", "safetensors", "bin"}
    assert files.siblings(3, 0) == SimulatedFiles(
        SimulatedHub(30, seed=6, num_families=4)
    ).siblings(3, 0)
    assert files.siblings(3, 0) != files.siblings(3, 1)


def test_the_official_client_downloads_a_revision_that_is_no_longer_the_newest(
    tmp_path: Path,
) -> None:
    hub = SimulatedHub(40, seed=1, num_families=3)
    index = find_plain(hub)
    old = hub.sha(index)
    while hub.state(index).num_pushes == 0 or hub.state(index).is_deleted:
        hub.advance(1)
    assert hub.find_push(index, old) == 0
    with serve_app_in_thread(make_simulation_app(hub)) as endpoint:
        path = hf_hub_download(
            hub.name(index, 0), "model.safetensors", revision=old, endpoint=endpoint,
            cache_dir=tmp_path,
        )  # fmt: skip
    data = Path(path).read_bytes()
    expected = SimulatedFiles(hub).read(index, 0)["model.safetensors"].digest.sha256
    assert hashlib.sha256(data).hexdigest() == expected
    assert all(tensor.size for tensor in load(data).values())


@pytest.mark.parametrize(
    ("what", "reason", "opens"),
    [
        ("private", Reason.PRIVATE, True),
        ("gated", Reason.GATED, True),
        ("disabled", Reason.DISABLED, False),
    ],
)
def test_closed_repos_keep_their_files(what: str, reason: Reason, opens: bool) -> None:
    hub = SimulatedHub(3000, seed=2, num_families=3)
    index = find_plain(hub, **{what: True})
    where = (hub.name(index), hub.sha(index), "model.safetensors")
    with serve_app_in_thread(make_simulation_app(hub)) as endpoint:
        listed = [row["_id"] for row in connect(endpoint).list_models()]
        assert (hub.row(index)["_id"] in listed) == (what != "private")
        with pytest.raises(HubError) as caught:
            connect(endpoint).read_range(*where, 0, 8)
        assert caught.value.reason is (Reason.NOT_FOUND if what == "private" else reason)
        if opens:
            assert len(connect(endpoint, token=TOKEN).read_range(*where, 0, 8)) == 8
