"""What a refresh would fetch of a family, and how big that is, before anything is fetched.

What it is: for every repo that is new, changed or not stored yet, the bytes of the files that the
model would be made of, as the hub states their sizes. Only details are asked for, of a bounded
number of repos; those beyond count as the mean of the others. What it is not: a selection: a header
or a licence may still keep a repo out, so the sum is what can come at most. Gated repos, to which a
token may or may not open the door, are named and not counted. Network and store reads; writes
nothing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import polars as pl

from ws_pipeline.errors import HubError, Reason, RefusedError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.crawl import CrawlResult
from ws_pipeline.hub.download import CONFIG_FILE
from ws_pipeline.hub.ledger import STAGES, Ledger
from ws_pipeline.hub.listing import parse_detail
from ws_pipeline.hub.repo import STATUS_LISTED
from ws_pipeline.hub.weight_files import find_weight_files
from ws_pipeline.hub.workers import map_in_order

MAX_ASKED = 1000
"""Detail requests of a forecast: the smallest window of the public hub allows about as many."""

FORECAST_SCHEMA: dict[str, pl.DataType] = {
    "hub_id": pl.String(),
    "repo_id": pl.String(),
    "num_bytes": pl.Int64(),  # null: the hub was not asked
    "reason": pl.String(),  # why nothing would be fetched of it; "" otherwise
}

_UNFINISHED = (STATUS_LISTED, *list(STAGES.values())[: list(STAGES).index("files")])
"""How far a repo is whose files are not stored."""


def forecast_family(
    client: HubClient,
    ledger: Ledger,
    crawl: CrawlResult,
    *,
    max_asked: int = MAX_ASKED,
) -> pl.DataFrame:
    """Return one row (FORECAST_SCHEMA) per repo of which something may be fetched.

    Args:
        client: The hub.
        ledger: How far each repo is that the crawl knew.
        crawl: A dry one: new and changed repos come without their files.
        max_asked: Repos whose details may be asked for, spread evenly over those that need it.
    """
    status = dict(ledger.read(crawl.family).select("hub_id", "status").iter_rows())
    rows = [
        row
        for row in crawl.frame.filter(pl.col("status") == STATUS_LISTED).to_dicts()
        if not row["reused"] or status.get(row["hub_id"]) in _UNFINISHED
    ]
    unknown = [row for row in rows if not row["reused"]]
    asked = _spread(unknown, max_asked)
    answers = map_in_order(lambda row: _ask_files(client, row), asked)
    for row, files in zip(asked, answers, strict=True):
        row["files"] = files
    known = {row["hub_id"] for row in (*asked, *(row for row in rows if row["reused"]))}
    has_blob = ledger.store.blobs.exists
    sizes = [
        (0, str(Reason.GATED))
        if row["gated"]
        else _measure(row, has_blob)
        if row["hub_id"] in known
        else (None, "")
        for row in rows
    ]
    columns = {
        "hub_id": [row["hub_id"] for row in rows],
        "repo_id": [row["repo_id"] for row in rows],
        "num_bytes": [num_bytes for num_bytes, _ in sizes],
        "reason": [reason for _, reason in sizes],
    }
    return pl.DataFrame(columns, schema=FORECAST_SCHEMA)


def estimate_bytes(forecast: pl.DataFrame) -> int:
    """Return the sum of a forecast; a repo that was not asked for counts as the mean of the others.

    Those without weights are among the others: there will be some among the ones not asked for.

    Args:
        forecast: FORECAST_SCHEMA.
    """
    open_ones = forecast.filter(pl.col("reason") != Reason.GATED)
    known = open_ones["num_bytes"].drop_nulls()
    num_unknown = open_ones.height - known.len()
    return int(known.sum()) + num_unknown * int(known.sum()) // max(known.len(), 1)


def measure_files(files: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the files that would be stored of a repo: the model's and its config.

    An index is not read here; all numbered shards beside it count.

    Raises:
        RefusedError: Where there is nothing to fetch, with the reason.
    """
    by_path = {file["path"]: file for file in files}
    paths, index = find_weight_files(by_path)
    if index:
        paths = _beside(index, by_path)
    paths += [CONFIG_FILE] if CONFIG_FILE in by_path else []
    return [by_path[path] for path in paths]


def _beside(index: str, names: Collection[str]) -> list[str]:
    folder = index.rpartition("/")[0]
    return [
        name
        for name in names
        if name.endswith(".safetensors") and name.rpartition("/")[0] == folder and "-of-" in name
    ]


def _spread(rows: list[dict[str, Any]], max_rows: int) -> list[dict[str, Any]]:
    """Return at most so many of the rows, evenly from first to last."""
    if len(rows) <= max_rows:
        return rows
    return [rows[index * len(rows) // max_rows] for index in range(max_rows)]


def _ask_files(client: HubClient, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a revision's files; none where the hub does not tell: the crawl will say why."""
    try:
        detail = parse_detail(client.repo_info(row["repo_id"], row["revision"]))
    except (HubError, RefusedError):
        return []
    files: list[dict[str, Any]] = detail["files"]
    return files


def _measure(row: Mapping[str, Any], has_blob: Callable[[str], bool]) -> tuple[int, str]:
    try:
        files = measure_files(row["files"])
    except RefusedError as error:
        return 0, str(error.reason)
    missing = [file for file in files if not (file["sha256"] and has_blob(file["sha256"]))]
    return sum(file["num_bytes"] for file in missing), ""
