"""What the whole Hub would cost, from costs that were measured: requests, hours, bytes, money.

`python benchmarks/sizing.py --measure` first counts the requests of a refresh of a served hub, and
its CPU; without it the counts of the last such run stand in. Everything else is arithmetic over the
measurements that `COSTS` names and prices that are assumptions. docs/scaling.md reads the result.
"""

import argparse
import math
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WINDOW_SECONDS = 300
"""The public hub counts requests in fixed windows of five minutes (hub-docs, rate-limits.md)."""

TIERS = {
    "anonymous": (500, 3_000),
    "free account": (1_000, 5_000),
    "PRO": (2_500, 12_000),
    "Team": (3_000, 20_000),
    "Enterprise": (6_000, 50_000),
    "Enterprise Plus": (10_000, 100_000),
}
"""Requests to the API and to files in a window, table of September 2025."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Measured, each with where."""

    repos_per_page: int = 500  # ws_pipeline/hub/pager.py
    scan_cpu_seconds: float = 76e-6  # a row; results/crawl-2026-11-23.md at 10^6 rows
    book_bytes: float = 58.0  # a row of the book; the same
    api_requests: float = 1.0  # a model; --measure
    file_requests: float = 3.0  # a model of one file; --measure
    stage_cpu_seconds: float = 0.134  # a small model's fixed cost from ledger to shards; --measure
    params_per_cpu_second: float = 103e6  # plan + pack; results/tokens-2026-11-23.md
    stored_bytes_ratio: float = 1.015  # shards over parameter bytes; the same (`stored`)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Assumptions, US dollars; put in your own."""

    cpu_hour: float = 0.04
    gigabyte_month: float = 0.023


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What is taken in."""

    name: str
    num_models: int
    num_params: float
    bytes_per_param: float
    shard_bytes: float = 5e9  # of a file; larger models come in several
    is_stored: bool = True  # False: details and headers only

    @property
    def num_bytes(self) -> float:
        """Of all parameters."""
        return self.num_params * self.bytes_per_param

    @property
    def num_files(self) -> float:
        """One a model, and one more for every so many bytes."""
        return self.num_models + self.num_bytes / self.shard_bytes


HUB_REPOS = 2_900_000
CORPORA = [
    Corpus(
        name="every repo, headers only",
        num_models=HUB_REPOS,
        num_params=0,
        bytes_per_param=0,
        is_stored=False,
    ),
    Corpus(name="171 B parameters", num_models=2_200, num_params=171e9, bytes_per_param=4),
    Corpus(name="10 T parameters", num_models=20_000, num_params=10e12, bytes_per_param=2),
]
"""The hub paper's training set (2,000 + 200 models), and sixty times as much; the second's number
of models is an assumption (0.5 B parameters each). The first is the upper end of looking at
everything: most repos have no safetensors and take no file request."""


def count_requests(corpus: Corpus, costs: Costs) -> tuple[float, float]:
    """API and file requests of a first crawl of the whole listing and of a corpus."""
    pages = math.ceil(HUB_REPOS / costs.repos_per_page)
    per_model = costs.file_requests - 1 if corpus.is_stored else 0
    files = corpus.num_models * per_model + corpus.num_files
    return pages + corpus.num_models * costs.api_requests, files


def count_hours(api: float, files: float, tier: tuple[int, int]) -> float:
    """Hours that the rate limit alone takes; the two budgets run side by side."""
    windows = max(math.ceil(api / tier[0]), math.ceil(files / tier[1]))
    return windows * WINDOW_SECONDS / 3600


def measure(num_repos: int) -> Costs:
    """Refresh a served hub of small models; count what it is asked, and the CPU."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from ws_pipeline.defs import operations
    from ws_pipeline.hub.server import make_app, serve_app_in_thread
    from ws_pipeline_tests.defs.small_hub import write_hub

    counts: Counter[str] = Counter()

    class Counting:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            path = scope["path"]
            kind = "files" if "/resolve/" in path else "list" if path == "/api/models" else "api"
            counts[kind] += 1
            await self.app(scope, receive, send)

    with tempfile.TemporaryDirectory() as folder:
        hub = Path(folder) / "hub"
        write_hub(hub, families=("mlp",), num_repos=num_repos)
        app = Starlette(routes=[Mount("/", app=Counting(make_app(hub)))])
        with serve_app_in_thread(app) as endpoint:
            started = time.process_time()
            operations.refresh(Path(folder) / "home", endpoint=endpoint)
            seconds = time.process_time() - started
    print(f"\nmeasured: {num_repos} repos, {dict(counts)}, {seconds:.1f} CPU-s with imports\n")
    return Costs(
        api_requests=counts["api"] / num_repos,
        file_requests=counts["files"] / num_repos,
        stage_cpu_seconds=seconds / num_repos,
    )


def print_tables(costs: Costs, prices: Prices) -> None:
    print(f"costs: {costs}\nprices: {prices}\n")
    names = [corpus.name for corpus in CORPORA]
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    rows: dict[str, list[str]] = {}

    def add(name: str, value: float, form: str = ",.0f") -> None:
        rows.setdefault(name, []).append(format(value, form))

    for corpus in CORPORA:
        api, files = count_requests(corpus, costs)
        add("models", corpus.num_models)
        add("API requests (5,800 of them pages of the listing)", api)
        add("file requests", files)
        for tier, limits in TIERS.items():
            add(f"hours at the limit: {tier}", count_hours(api, files, limits), ",.1f")
        add("downloaded, TB", corpus.num_bytes / 1e12, ",.2f")
        add("hours at 1 Gbit/s", corpus.num_bytes * 8 / 1e9 / 3600, ",.1f")
        stored = corpus.num_bytes * costs.stored_bytes_ratio
        add("shards kept, TB", stored / 1e12, ",.2f")
        add("the book of all repos, GB", HUB_REPOS * costs.book_bytes / 1e9, ",.2f")
        cpu = (
            HUB_REPOS * costs.scan_cpu_seconds
            + corpus.num_models * costs.stage_cpu_seconds
            + corpus.num_params / costs.params_per_cpu_second
        ) / 3600
        add("CPU hours, scan to shards", cpu, ",.1f")
        add("dollars of CPU", cpu * prices.cpu_hour, ",.2f")
        add("dollars a month of storage", stored / 1e9 * prices.gigabyte_month, ",.0f")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(values)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", type=int, metavar="REPOS", help="count on a served hub first")
    given = parser.parse_args()
    costs = measure(given.measure) if given.measure else Costs()
    print_tables(costs, Prices())


if __name__ == "__main__":
    main()
