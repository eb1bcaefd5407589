"""What a dry run says would be fetched: exact sizes, what is stored already, what is left out."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.forecast import (
    FORECAST_SCHEMA,
    estimate_bytes,
    forecast_family,
    measure_files,
)
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.hub.scripted_hub import connect, make_weights, write_repo

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def forecast(hub: Path, ledger: Ledger, **options: int) -> dict[str, tuple[int | None, str]]:
    with serve_in_thread(hub) as endpoint:
        client = connect(endpoint)
        crawl = crawl_family(client, ledger, "mlp", now=NOW, dry_run=True)
        frame = forecast_family(client, ledger, crawl, **options)
    return {name: (size, reason) for name, size, reason in frame.drop("hub_id").iter_rows()}


def size_of(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in ("model.safetensors", "config.json"))


def test_a_forecast_counts_the_bytes_of_the_models_files_and_names_what_has_none(
    tmp_path: Path,
) -> None:
    hub, ledger = tmp_path / "hub", Ledger(store=Store.open(tmp_path / "store"))
    one = write_repo(hub, "zoo/one", weights=make_weights(), files={"training.log": b"x" * 5000})
    write_repo(hub, "zoo/pickle", files={"pytorch_model.bin": b"x" * 5000})
    write_repo(hub, "zoo/gated", weights=make_weights(1), settings={"gated": "manual"})
    assert forecast(hub, ledger) == {
        "zoo/one": (size_of(one), ""),
        "zoo/pickle": (0, "pickle_only"),
        "zoo/gated": (0, "gated"),
    }
    assert ledger.families() == []


def test_what_is_stored_already_is_not_fetched_again(tmp_path: Path) -> None:
    hub, ledger = tmp_path / "hub", Ledger(store=Store.open(tmp_path / "store"))
    folder = write_repo(hub, "zoo/one", weights=make_weights())
    ledger.store.blobs.put_file(folder / "model.safetensors")
    config_bytes = (folder / "config.json").stat().st_size
    assert forecast(hub, ledger) == {"zoo/one": (config_bytes, "")}
    with serve_in_thread(hub) as endpoint:  # crawled, but no further: its files are still to come
        crawl_family(connect(endpoint), ledger, "mlp", now=NOW)
    assert forecast(hub, ledger) == {"zoo/one": (config_bytes, "")}


def test_what_may_not_be_asked_for_counts_as_the_mean_of_the_rest(tmp_path: Path) -> None:
    hub, ledger = tmp_path / "hub", Ledger(store=Store.open(tmp_path / "store"))
    folders = [write_repo(hub, f"zoo/m{i}", weights=make_weights(i)) for i in range(5)]
    found = forecast(hub, ledger, max_asked=2)
    asked = [size for size, _ in found.values() if size is not None]
    assert (len(found), asked) == (5, [size_of(folders[0])] * 2)
    rows = [("h", name, size, reason) for name, (size, reason) in found.items()]
    frame = pl.DataFrame(rows, schema=FORECAST_SCHEMA, orient="row")
    assert estimate_bytes(frame) == 5 * size_of(folders[0])
    assert estimate_bytes(frame.clear()) == 0


def test_all_shards_beside_an_index_count() -> None:
    names = ["model.safetensors.index.json", "config.json", "other.safetensors"]
    names += [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    files = [{"path": name, "num_bytes": 10} for name in names]
    assert sorted(file["path"] for file in measure_files(files)) == sorted(
        [*names[3:], "config.json"]
    )
    with pytest.raises(RefusedError) as caught:
        measure_files([{"path": "model.bin", "num_bytes": 1}])
    assert caught.value.reason is Reason.PICKLE_ONLY
