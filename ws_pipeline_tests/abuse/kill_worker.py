"""A warm process that forks a worker per request, for a test to kill: ``python -m ...``.

A line on stdin is a JSON request; the answer is a line with the child's process id, and after an
empty line one with the status it ended with. Forking makes a start cost milliseconds instead of a
second.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.download import download_family
from ws_pipeline.hub.selection import SelectionPolicy, select_family
from ws_pipeline.hub.triage import triage_family
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.weights import layers
from ws_pipeline.weights.header_pool import parse_header_apart
from ws_pipeline.weights.layers import plan_family
from ws_pipeline_tests.hub.simulated_stages import run_stages


def store_family(store: Store, request: dict[str, Any]) -> None:
    """Triage and download one family into a store, as the assets do."""
    client = HubClient(request["endpoint"])
    repos = pl.read_parquet(request["repos"])
    headers = triage_family(client, store, repos, parse=parse_header_apart)
    selection = select_family(repos, headers, SelectionPolicy())
    files = download_family(client, store, repos, selection, headers)
    assert files["accepted"].all(), files
    store.tables.write("hub/files/mlp", files.drop("reused"))


def run_day(store: Store, request: dict[str, Any]) -> None:
    """Scan a hub, crawl, triage and download every family, as a night does."""
    run_stages(request["endpoint"], store, day=request["day"], full=request["full"])


def pack_models(store: Store, request: dict[str, Any]) -> None:
    """Measure and pack one family of a store that holds its files, as the assets do."""
    layers.GROUP_MODELS = request["group"]
    for number, folder in enumerate(request["folders"]):
        blob = store.blobs.put_file(Path(folder) / "model.safetensors")
        file = {"path": "model.safetensors", "sha256": blob.sha256, "num_bytes": blob.num_bytes}
        store.manifests.create(f"files/id{number}/r/1", {"files": [file]})
    planned = plan_family(store, pl.read_parquet(request["files"]))
    for row in planned.filter("accepted").iter_rows(named=True):
        # What is reported is there, and is what its name says.
        assert len(store.blobs.read(row["shard_sha256"])) == row["num_shard_bytes"]
        assert store.manifests.read(row["plan_manifest"])["shard"]["sha256"] == row["shard_sha256"]
    packed = pack_family(store, planned)
    assert packed["accepted"].all(), packed
    store.tables.write("hub/packed", packed.drop("reused", "layers"))


WORK = {"download": store_family, "day": run_day, "pack": pack_models}


def main() -> None:
    print("ready", flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                request = json.loads(line)
                store = Store.open(
                    request["root"],
                    storage_options=request["options"],
                    cache=Path(request["cache"]),
                )
                WORK[request["work"]](store, request)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
                raise
            finally:
                os._exit(status)
        print(child, flush=True)  # noqa: T201 - the protocol
        sys.stdin.readline()  # the test is done with killing: from here the id may be used anew
        print(os.waitpid(child, 0)[1], flush=True)  # noqa: T201 - the protocol


if __name__ == "__main__":
    main()
