"""The driver: crawl, find what is stale, run exactly that, in this process.

Belongs here: order and choice. Does not: what an asset does, whether it is stale (`staleness`),
printing (the reporter does). Everything runs through Dagster on the home's persistent instance, so
the event log holds all of it. A daemon with the automation conditions does the same job unattended;
this is the one for a shell, where a run of many small steps has to take seconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.backbone import EMBEDDINGS, MODEL
from ws_pipeline.defs.assets.corpus import SPLITS
from ws_pipeline.defs.assets.evaluation import LEADERBOARD, RESULTS
from ws_pipeline.defs.assets.hub import EDITION_TAG, FILES, HEADERS, REPOS, SELECTION
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.assets.weights import LAYERS
from ws_pipeline.defs.assets.zoo import DIVERSITY
from ws_pipeline.defs.assets.zoo import MODELS as ZOO_MODELS
from ws_pipeline.defs.build import build_defs, default_resources
from ws_pipeline.defs.home_lock import lock_home
from ws_pipeline.defs.instance import AssetRun, execute, open_instance
from ws_pipeline.defs.io_managers import table_key
from ws_pipeline.defs.left_out import count_dropped
from ws_pipeline.defs.looks import has_moved, scan_whole_hub
from ws_pipeline.defs.outcomes import Reporter, SilentReporter, StepOutcome
from ws_pipeline.defs.partitions import FAMILY_TAG, families, partition_keys
from ws_pipeline.defs.provenance import VersionReader
from ws_pipeline.defs.resources import HomeResource, HubResource, StoreResource, open_hub
from ws_pipeline.defs.scan import require_families
from ws_pipeline.defs.staleness import StalenessReader
from ws_pipeline.errors import MissingInputError
from ws_pipeline.hub.families import check_family
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.scan_edition import Edition
from ws_pipeline.recipes import DEFAULT_RECIPE
from ws_pipeline.storage.store import Store

FAMILY_STAGES = (HEADERS, SELECTION, FILES, LAYERS, SHARDS)


@dataclass(kw_only=True, slots=True)
class Driver:
    """One home, one hub, one recipe whose policies count; collects what happened."""

    home: Path
    hub: HubResource
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    staleness: StalenessReader
    reporter: Reporter
    outcomes: list[StepOutcome] = field(default_factory=list)

    def crawl(self, only: Sequence[str] = ()) -> list[str]:
        """Bring `hub/repos` up to the hub, new families included; those that went well.

        Without ``only`` the whole hub is scanned, and the families that the scan has moved are
        read from the book; the others have nothing new. With it, each named family is listed.
        """
        self.reporter.started("crawl")
        if only:
            names = sorted({check_family(name) for name in only})
            self._add_families(names)
            return [name for name in names if self._crawl_family(name, {})]
        book = self.hub.book(self.store)
        scan_whole_hub(self.hub.client(), book, now=datetime.now(UTC))
        edition = book.editions.last()
        names = sorted({*partition_keys(self.instance, REPOS), *book.families()})
        self._add_families(names)
        return [name for name in names if self._follow_book(name, edition)]

    def _add_families(self, names: Sequence[str]) -> None:
        new = sorted(set(names) - set(partition_keys(self.instance, REPOS)))
        if new:
            self.instance.add_dynamic_partitions(str(families.name), new)

    def _follow_book(self, name: str, edition: Edition) -> bool:
        """Crawl a family that the last scan has moved, or whose last crawl left something to do."""
        made = self.staleness.versions.metadata(REPOS, name)
        if has_moved(edition, name, made) or self.staleness.cause(REPOS, name):
            return self._crawl_family(name, {EDITION_TAG: str(edition.number)})
        self._unchanged(REPOS, name)
        return True

    def _crawl_family(self, name: str, tags: Mapping[str, str]) -> bool:
        return self._run("crawl_family", [REPOS], name, tags={FAMILY_TAG: name, **tags})

    def require_repos(self, only: Sequence[str] = ()) -> None:
        """Stop where there is nothing to work on, at all or of a family that was named.

        Raises:
            MissingInputError: If there is no repo and no crawl failed, which says so itself.
        """
        if any(outcome.state == "failed" for outcome in self.outcomes):
            return
        if only:
            rows = {name: self.ledger.read_repos(name) for name in self.ledger.families()}
            for name in only:
                if name in rows and not rows[name].height:
                    self.instance.delete_dynamic_partition(str(families.name), name)
            require_families(only, rows)
            return
        if any(self.ledger.read_repos(name).height for name in self.ledger.families()):
            return
        raise MissingInputError(self.hub.describe_empty())

    def refresh_families(self, names: Sequence[str]) -> None:
        """Run what is stale of each family, up to its token shards."""
        for name in names:
            self._run_stale("refresh_family", FAMILY_STAGES, name)

    def refresh_corpus(self) -> bool:
        """Split again if any family's shards or ledger changed, and none is known to be wrong.

        A family whose run failed keeps the tables that it had; one whose tables exist but did not
        pass a blocking check would put what is wrong into the corpus.
        """
        wrong = [
            f"{key.to_user_string()}[{name}]"
            for key in (REPOS, SHARDS)
            for name in self.staleness.versions.versions(key)
            if not self.staleness.is_checked(key, name)
        ]
        if not wrong:
            return self._run_stale("refresh_corpus", [SPLITS], "")
        detail = f"blocking checks did not pass on {', '.join(sorted(wrong))}"
        name = SPLITS.to_user_string()
        self._report(StepOutcome(asset=name, state="failed", detail=detail, reason="internal"))
        return False

    def refresh_model(self, recipe_name: str, *, again: bool, num_processes: int = 1) -> bool:
        """Train if there is no model of the recipe as it is; on new data alone only if asked."""
        cause = self.staleness.cause(MODEL, recipe_name)
        if cause == "" or (cause == "data" and not again):
            detail = cause and "the corpus has moved on; `refresh --train` trains again"
            self._unchanged(MODEL, recipe_name, detail)
            return True
        self.reporter.started(f"train {recipe_name}")
        config = {"ops": {"backbone__model": {"config": {"num_processes": num_processes}}}}
        return self._run("train_backbone", [MODEL], recipe_name, run_config=config)

    def refresh_recipe(self, recipe_name: str) -> bool:
        """Embed and evaluate what is stale."""
        return self._run_stale("evaluate", [EMBEDDINGS, *RESULTS], recipe_name)

    def refresh_leaderboard(self, *, again: bool = False) -> bool:
        """Write leaderboard and report if any result changed, or in any case."""
        if again:
            return self._run("write_leaderboard", [LEADERBOARD], "")
        return self._run_stale("write_leaderboard", [LEADERBOARD], "")

    def make_zoo(self, name: str, *, num_processes: int = 1) -> bool:
        """Train, publish and measure a zoo if its config changed."""
        options = {"ops": {"zoo__models": {"config": {"num_processes": num_processes}}}}
        return self._run_stale("make_zoo", [ZOO_MODELS, DIVERSITY], name, {ZOO_MODELS: options})

    def has_corpus(self) -> bool:
        """Whether `corpus/splits` was ever made."""
        return self.staleness.versions.recorded(SPLITS, None) is not None

    def corpus(self) -> pl.DataFrame:
        """The models of `corpus/splits`; none where it was never made."""
        tables, key = self.store.tables, table_key(SPLITS)
        return tables.scan(key).collect() if tables.exists(key) else pl.DataFrame()

    def left_out(self) -> dict[str, int]:
        """How many repos did not go in, by reason, most first."""
        counts = count_dropped(self.ledger).group_by("reason").agg(pl.col("num_repos").sum())
        return dict(counts.sort(-pl.col("num_repos"), "reason").rows())

    def require_models(self) -> None:
        """Stop where a training would have nothing to learn from.

        Raises:
            MissingInputError: If no model is in the train split.
        """
        corpus = self.corpus()
        if corpus.height and (corpus["split"] == "train").any():
            return
        reasons = ", ".join(f"{number} {reason}" for reason, number in self.left_out().items())
        raise MissingInputError(
            f"The corpus under {self.home} has no model to train on; {corpus.height} are held out, "
            f"left out are {reasons or 'none'}. Crawl more with ws-pipeline refresh; "
            "ws-pipeline hub ledger has every repo."
        )

    def trained_recipes(self) -> list[str]:
        """Recipes with a model.

        Raises:
            MissingInputError: If there is none.
        """
        names = sorted(self.staleness.versions.versions(MODEL))
        if not names:
            raise MissingInputError(
                f"No recipe has a trained model under {self.home}: "
                "run `ws-pipeline train --recipe NAME` first."
            )
        return names

    def evaluated_recipes(self) -> list[str]:
        """Recipes with results."""
        return sorted(set().union(*(self.staleness.versions.versions(key) for key in RESULTS)))

    def model_metadata(self, recipe_name: str) -> dict[str, Any]:
        """What the latest training reported."""
        return self.staleness.versions.metadata(MODEL, recipe_name)

    def results(self) -> pl.DataFrame:
        """The leaderboard's rows."""
        return self.store.tables.scan(table_key(LEADERBOARD)).collect()

    @property
    def report_path(self) -> Path:
        """Where the HTML report lies."""
        return self.home / "report" / "report.html"

    @property
    def store(self) -> Store:
        """The store that the assets write to."""
        return StoreResource(home=HomeResource(path=str(self.home))).open()

    @property
    def ledger(self) -> Ledger:
        """The ledger of that store."""
        return Ledger(store=self.store)

    def _run_stale(
        self,
        job: str,
        stages: Sequence[dg.AssetKey],
        partition: str,
        options: Mapping[dg.AssetKey, dict[str, Any]] | None = None,
    ) -> bool:
        """Run the first stale stage and all behind it in one run, so that blocking checks block.

        Args:
            job: Which job.
            stages: Its assets, in order.
            partition: Of all of them.
            options: Run config of the run's first stage, by stage.
        """
        first = next(
            (i for i, key in enumerate(stages) if self.staleness.cause(key, partition)), len(stages)
        )
        for key in stages[:first]:
            self._unchanged(key, partition)
        if first == len(stages):
            return True
        title = job.replace("_", " ") + (f" {partition}" if partition else "")
        self.reporter.started(title)
        run_config = (options or {}).get(stages[first])
        return self._run(job, stages[first:], partition, run_config=run_config)

    def _run(
        self,
        job: str,
        keys: Sequence[dg.AssetKey],
        partition: str,
        run_config: dict[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        runs = execute(
            self.definitions,
            self.instance,
            job,
            keys,
            partition=partition,
            run_config=run_config,
            tags=tags,
        )
        self.staleness.versions.forget(keys)
        for run in runs:
            self._report(to_outcome(run))
        return all(run.made for run in runs)

    def _unchanged(self, key: dg.AssetKey, partition: str, detail: str = "") -> None:
        name = key.to_user_string()
        self._report(StepOutcome(asset=name, partition=partition, state="unchanged", detail=detail))

    def _report(self, outcome: StepOutcome) -> None:
        self.outcomes.append(outcome)
        self.reporter.finished(outcome)


def to_outcome(run: AssetRun) -> StepOutcome:
    """A run's numbers as the command line shows them."""
    return StepOutcome(
        asset=run.asset_key.to_user_string(),
        partition=run.partition,
        state="done" if run.made else "failed",
        num_rows=int(run.metadata.get("dagster/row_count", 0)),
        num_processed=int(run.metadata.get("num_processed", 0)),
        num_reused=int(run.metadata.get("num_reused", 0)),
        seconds=run.seconds,
        detail=run.failure.sentence if run.failure else "",
        reason=run.failure.reason if run.failure else "",
    )


@contextmanager
def open_driver(
    home: Path,
    *,
    endpoint: str = "",
    policy: str = DEFAULT_RECIPE,
    reporter: Reporter | None = None,
) -> Iterator[Driver]:
    """Open the home's instance and its hub for the time of a block.

    Raises:
        RefusedError: With ``conflict``, if another driver is at work in the same home.
    """
    home = home.expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    with lock_home(home), open_hub(home, endpoint) as hub, open_instance(home) as instance:
        resources = default_resources(
            home=str(home), endpoint=endpoint, served_at=hub.served_at, policy=policy
        )
        definitions = build_defs(resources)
        versions = VersionReader(instance=instance)
        yield Driver(
            home=home,
            hub=hub,
            instance=instance,
            definitions=definitions,
            staleness=StalenessReader(definitions=definitions, versions=versions, policy=policy),
            reporter=reporter or SilentReporter(),
        )
