"""From a hub's listing to verified files: the four hub assets, by family."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.bars import count_bar
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.looks import BOOK_DIGEST, LOOKED_AT, scan_whole_hub
from ws_pipeline.defs.partitions import families
from ws_pipeline.defs.resources import HubResource, PolicyResource, StoreResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.step import Step
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.download import DOWNLOAD_VERSION, download_family
from ws_pipeline.hub.eviction import DiskBudget
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.selection import select_family
from ws_pipeline.hub.triage import TRIAGE_VERSION, triage_family
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.shards import SHARDS_STAGE, SHARDS_VERSION
from ws_pipeline.weights.header_pool import parse_header_apart

REPOS = dg.AssetKey(["hub", "repos"])
HEADERS = dg.AssetKey(["hub", "headers"])
SELECTION = dg.AssetKey(["hub", "selection"])
FILES = dg.AssetKey(["hub", "files"])

HUB_POOL = "hub"
"""Steps that ask the hub share one pool: a hub counts requests by token, not by step."""

FILES_POOL = "files"
"""Downloads have a pool of their own with one place: each counts what is stored when it begins, so
two at once would exceed the budget of disk together. One fills a line with its four requests."""

EDITION_TAG = "ws/edition"
"""On a run: the book of the whole hub is at this edition or later; the family is read from it."""

LOOK_SINCE_TAG = "ws/look_since"
"""On a run: an ISO time. The book has to be as new; the first run that finds it older scans."""


@dg.asset(
    key=REPOS,
    partitions_def=families,
    # A zoo is published as hub repos and comes in through the same door. No crawl waits for it.
    deps=[dg.AssetDep(dg.AssetKey(["zoo", "models"]), partition_mapping=dg.AllPartitionMapping())],
    group_name="hub",
    kinds={"python", "polars", "parquet"},
    owners=["team:corpus"],
    code_version="1",
    pool=HUB_POOL,
    tags={"ws/asks": "hub"},
)
@retried
def repos(
    context: dg.AssetExecutionContext, hub: HubResource, store: StoreResource
) -> dg.MaterializeResult[Any]:
    """The ledger: one row per repo of the family, newest listing first to last, never deleted.

    The row holds the immutable hub id, revision, dates, licence, gating, base models, tags and
    files with their sha256 as the hub tells them. Later stages add their verdicts to the ledger.
    What is listed comes from a scan of the whole hub where the run's tags name one; otherwise the
    hub is asked for this family alone.
    """
    step = Step.begin(context)
    opened, client = store.open(), hub.client()
    book = find_book(context.run.tags, hub, client, opened)
    with count_bar(f"details {step.partition}", "repo") as show:
        crawl = crawl_family(
            client,
            Ledger(store=opened),
            step.partition,
            now=datetime.now(UTC),
            book=book,
            on_progress=show,
        )
    num_processed = crawl.num_new + crawl.num_changed
    return step.finish(
        crawl.frame,
        config_digest=config_digest(REPOS, step.partition),
        num_processed=num_processed,
        num_reused=crawl.frame.height - num_processed,
        metadata={
            "num_listed": crawl.num_listed,
            "num_new": crawl.num_new,
            "num_changed": crawl.num_changed,
            "num_gone": crawl.num_gone,
            LOOKED_AT: crawl.looked_at.isoformat(),
            BOOK_DIGEST: crawl.book_digest,
        },
    )


def find_book(
    tags: Mapping[str, str], hub: HubResource, client: HubClient, store: Store
) -> ScanBook | None:
    """Return the book that a run is to read; None where it is to list its family itself."""
    book = hub.book(store)
    if LOOK_SINCE_TAG in tags:
        scan_whole_hub(client, book, now=datetime.fromisoformat(tags[LOOK_SINCE_TAG]))
        return book
    return book if EDITION_TAG in tags else None


@dg.asset(
    key=HEADERS,
    partitions_def=families,
    ins={"repos": dg.AssetIn(REPOS)},
    group_name="hub",
    kinds={"safetensors", "polars", "parquet"},
    owners=["team:corpus"],
    code_version=TRIAGE_VERSION,
    pool=HUB_POOL,
    tags={"ws/asks": "hub"},
)
@retried
def headers(
    context: dg.AssetExecutionContext,
    repos: pl.LazyFrame,
    hub: HubResource,
    store: StoreResource,
) -> dg.MaterializeResult[Any]:
    """Tensor names, dtypes and shapes, read from safetensors headers by range request.

    Nothing is downloaded but headers. Repos without safetensors, gated ones and those whose header
    breaks the format end here, each with its reason.
    """
    step = Step.begin(context)
    opened = store.open()
    frame = triage_family(hub.client(), opened, repos.collect(), parse=parse_header_apart)
    Ledger(store=opened).record_verdicts(step.partition, "headers", frame)
    return step.finish(
        frame,
        config_digest=config_digest(HEADERS, step.partition),
        metadata={"num_params": int(frame["num_params"].sum() or 0)},
    )


@dg.asset(
    key=SELECTION,
    partitions_def=families,
    ins={"repos": dg.AssetIn(REPOS), "headers": dg.AssetIn(HEADERS)},
    group_name="hub",
    kinds={"polars", "parquet"},
    owners=["team:corpus"],
    code_version="1",
)
@retried
def selection(
    context: dg.AssetExecutionContext,
    repos: pl.LazyFrame,
    headers: pl.LazyFrame,
    store: StoreResource,
    policy: PolicyResource,
) -> dg.MaterializeResult[Any]:
    """Which repo revisions go in, and a reason code for each that does not.

    The rules are the selection policy of the recipe that the `policy` resource names.
    """
    step = Step.begin(context)
    frame = select_family(repos.collect(), headers.collect(), policy.get().selection)
    Ledger(store=store.open()).record_verdicts(step.partition, "selection", frame)
    return step.finish(
        frame,
        config_digest=config_digest(SELECTION, step.partition, policy=policy.name),
        metadata={"policy": policy.name, "num_params": int(frame["num_params"].sum() or 0)},
    )


@dg.asset(
    key=FILES,
    partitions_def=families,
    ins={
        "repos": dg.AssetIn(REPOS),
        "headers": dg.AssetIn(HEADERS),
        "selection": dg.AssetIn(SELECTION),
    },
    group_name="hub",
    kinds={"safetensors", "parquet"},
    owners=["team:corpus"],
    code_version=DOWNLOAD_VERSION,
    pool=FILES_POOL,
    tags={"ws/asks": "hub"},
)
@retried
def files(  # noqa: PLR0917 - Dagster passes inputs and resources by name
    context: dg.AssetExecutionContext,
    repos: pl.LazyFrame,
    headers: pl.LazyFrame,
    selection: pl.LazyFrame,
    hub: HubResource,
    store: StoreResource,
) -> dg.MaterializeResult[Any]:
    """Verified, content-addressed safetensors of the selected revisions, one manifest each."""
    step = Step.begin(context)
    opened = store.open()
    frame = download_family(
        hub.client(),
        opened,
        repos.collect(),
        selection.collect(),
        headers.collect(),
        budget=_file_budget(opened, store.file_budget_bytes),
    )
    Ledger(store=opened).record_verdicts(step.partition, "files", frame)
    return step.finish(
        frame,
        config_digest=config_digest(FILES, step.partition),
        metadata={"num_bytes": int(frame["num_bytes"].sum() or 0)},
    )


def _file_budget(store: Store, max_bytes: int) -> DiskBudget:
    """Return the budget under which a revision's files may go once its tokens are stored."""

    def has_tokens(hub_id: str, revision: str) -> bool:
        return store.manifests.exists(manifest_key(SHARDS_STAGE, hub_id, revision, SHARDS_VERSION))

    if not max_bytes:
        return DiskBudget(None, is_done=has_tokens)
    return DiskBudget(store, max_bytes=max_bytes, is_done=has_tokens)
