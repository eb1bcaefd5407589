"""Asset checks: what has to hold of every table before anything is made from it.

Belongs here: reading a table and saying whether a property holds. Does not: repairing anything, and
checks that need torch (:mod:`ws_pipeline.defs.model_checks`). All are blocking: in the run that
makes the asset nothing downstream starts after a failure; across runs the automation condition
waits for them.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.backbone import EMBEDDINGS
from ws_pipeline.defs.assets.composition import COMPOSITION
from ws_pipeline.defs.assets.corpus import SPLITS, VERDICTS_TABLE
from ws_pipeline.defs.assets.evaluation import LEADERBOARD, PROPERTIES, RECONSTRUCTION, RETRIEVAL
from ws_pipeline.defs.assets.hub import FILES, HEADERS, REPOS, SELECTION
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.assets.weights import LAYERS
from ws_pipeline.defs.assets.zoo import DIVERSITY
from ws_pipeline.defs.assets.zoo import MODELS as ZOO_MODELS
from ws_pipeline.defs.io_managers import load_all_partitions
from ws_pipeline.defs.partitions import dimension, families, recipes, zoos
from ws_pipeline.defs.resources import HomeResource, PolicyResource, StoreResource
from ws_pipeline.defs.runs import TRAINED, UNTRAINED
from ws_pipeline.errors import Reason
from ws_pipeline.evaluation.features import HYPER_PARAMETERS, MEAN, RANDOM, STATISTICS
from ws_pipeline.studies.composition import BASELINE
from ws_pipeline.tokens.audit import count_leaks, find_leaks

PARTITIONS: Mapping[str, dg.PartitionsDefinition[Any] | None] = {
    "family": families,
    "recipe": recipes,
    "zoo": zoos,
    "": None,
}
IDENTITY = ["hub_id", "revision"]


def blocking_check(
    **fields: Any,
) -> Callable[[Callable[..., Any]], dg.AssetChecksDefinition]:
    """`dg.asset_check` that blocks; the notice that partitioned checks are in preview is quiet."""

    def wrap(function: Callable[..., Any]) -> dg.AssetChecksDefinition:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=dg.PreviewWarning)
            return dg.asset_check(blocking=True, **fields)(function)

    return wrap


def verdict(problems: pl.DataFrame, **metadata: Any) -> dg.AssetCheckResult:
    """Pass when there is no problem row; otherwise show the first few."""
    shown = [str(row) for row in problems.head(5).to_dicts()]
    return dg.AssetCheckResult(
        passed=problems.is_empty(),
        metadata={
            "num_problems": problems.height,
            **metadata,
            **({"first": shown} if shown else {}),
        },
    )


def find_bad_verdicts(table: pl.DataFrame, upstream: pl.DataFrame | None = None) -> pl.DataFrame:
    """Rows that break the rules of a stage's table, each with what is wrong.

    Every accepted row of the stage before has exactly one row here and no other has; a reason is a
    known code, and there is one exactly when the row is refused.
    """
    codes = [str(reason) for reason in Reason]
    rules = {
        "comes twice": pl.struct(IDENTITY).is_duplicated(),
        "reason does not go with accepted": pl.col("accepted") != (pl.col("reason") == ""),
        "unknown reason": (pl.col("reason") != "") & ~pl.col("reason").is_in(codes),
    }
    found = [
        table.filter(rule).select(*IDENTITY, problem=pl.lit(name)) for name, rule in rules.items()
    ]
    if upstream is not None:
        due = upstream.filter("accepted")
        found += [
            due.join(table, on=IDENTITY, how="anti").select(*IDENTITY, problem=pl.lit("no row")),
            table.join(due, on=IDENTITY, how="anti").select(
                *IDENTITY, problem=pl.lit("was not accepted before")
            ),
        ]
    return pl.concat(found)


def find_unaccounted(layers: pl.DataFrame) -> pl.DataFrame:
    """Models whose tokenised, carried and excluded bytes do not add up to the bytes they have."""
    sums = pl.sum_horizontal("num_tokenised_bytes", "num_carried_bytes", "num_excluded_bytes")
    listed = pl.col("layers").list.eval(pl.element().struct.field("num_bytes")).list.sum()
    return (
        layers.filter("accepted")
        .with_columns(accounted=sums, in_layers=listed)
        .filter(
            (pl.col("accounted") != pl.col("num_bytes"))
            | (pl.col("in_layers") > pl.col("num_bytes"))
        )
        .select(*IDENTITY, "num_bytes", "accounted", "in_layers")
    )


def find_disagreements(verdicts: pl.DataFrame, corpus: pl.DataFrame) -> pl.DataFrame:
    """Bad verdicts, accepted models that the corpus lacks, and models that nobody accepted."""
    corpus, accepted = corpus.select(IDENTITY), verdicts.filter("accepted").select(IDENTITY)
    return pl.concat(
        [
            find_bad_verdicts(verdicts),
            accepted.join(corpus, on=IDENTITY, how="anti").with_columns(problem=pl.lit("missing")),
            corpus.join(accepted, on=IDENTITY, how="anti").with_columns(problem=pl.lit("unjudged")),
        ]
    )


def find_bad_vectors(embeddings: pl.DataFrame, corpus: pl.DataFrame) -> pl.DataFrame:
    """Vectors that are missing, not finite, or all zero."""
    bad = embeddings.with_columns(
        finite=pl.col("embedding").list.eval(pl.element().is_finite()).list.all(),
        size=pl.col("embedding").list.eval(pl.element().abs()).list.sum(),
    ).filter(~pl.col("finite") | (pl.col("size") == 0))
    found = [bad.select("representation", *IDENTITY, problem=pl.lit("not finite, or all zero"))]
    for name in (TRAINED, UNTRAINED):
        own = embeddings.filter(pl.col("representation") == name)
        found.append(
            corpus.join(own, on=IDENTITY, how="anti").select(
                pl.lit(name).alias("representation"), *IDENTITY, problem=pl.lit("no vector")
            )
        )
    return pl.concat(found)


def stage_check(
    asset_key: dg.AssetKey, upstream_key: dg.AssetKey | None
) -> dg.AssetChecksDefinition:
    """Make the check that a stage judged every row it was given, with a known reason."""
    partitions = PARTITIONS[dimension(asset_key)]
    description = (
        "One row per accepted repo revision of the stage before; every reason is a known code."
    )
    if upstream_key is None:

        @blocking_check(
            asset=asset_key,
            name="rows_are_unique_and_reasons_known",
            description="One row per repo revision; every reason is a known code.",
            partitions_def=partitions,
        )
        def check(table: pl.LazyFrame) -> dg.AssetCheckResult:
            frame = table.collect()
            return verdict(find_bad_verdicts(frame), num_rows=frame.height)

        return check

    @blocking_check(
        asset=asset_key,
        name="every_repo_is_judged",
        description=description,
        additional_ins={"upstream": dg.AssetIn(upstream_key)},
        partitions_def=partitions,
    )
    def check_against(table: pl.LazyFrame, upstream: pl.LazyFrame) -> dg.AssetCheckResult:
        frame = table.collect()
        return verdict(find_bad_verdicts(frame, upstream.collect()), num_rows=frame.height)

    return check_against


@blocking_check(asset=FILES, partitions_def=families)
def every_file_is_stored(table: pl.LazyFrame, store: StoreResource) -> dg.AssetCheckResult:
    """Every file that a manifest names lies in the blob store."""
    opened = store.open()
    missing = []
    for row in table.filter("accepted").collect().to_dicts():
        files = opened.manifests.read(row["manifest"])["files"]
        missing += [
            {"repo_id": row["repo_id"], "path": file["path"], "sha256": file["sha256"]}
            for file in files
            if not opened.blobs.exists(file["sha256"])
        ]
    return verdict(pl.DataFrame(missing))


@blocking_check(asset=LAYERS, partitions_def=families)
def every_byte_is_accounted_for(table: pl.LazyFrame) -> dg.AssetCheckResult:
    """Tokenised, carried and excluded bytes add up to the bytes of each model's tensors."""
    frame = table.collect()
    return verdict(find_unaccounted(frame), num_bytes=int(frame["num_bytes"].sum() or 0))


@blocking_check(asset=SPLITS)
def splits_share_nothing(
    table: pl.LazyFrame, store: StoreResource, policy: PolicyResource
) -> dg.AssetCheckResult:
    """No lineage, file, shard, layer or near copy lies in two splits, found again from below."""
    frame = table.collect()
    opened = store.open()
    repos, layers = (
        load_all_partitions(opened.tables, key).select(columns).collect()
        for key, columns in (
            (REPOS, [*IDENTITY, "files"]),
            (LAYERS, [*IDENTITY, "accepted", "layers"]),
        )
    )
    leaks = find_leaks(frame, repos, layers, near_distance=policy.get().corpus.near_distance)
    counts = {f"num_leaks_{kind}": number for kind, number in count_leaks(leaks).items()}
    return verdict(leaks, num_lineages=frame["lineage_root"].n_unique(), **counts)


@blocking_check(asset=SPLITS)
def verdicts_and_corpus_agree(table: pl.LazyFrame, store: StoreResource) -> dg.AssetCheckResult:
    """One verdict per tokenised model, with a known reason; the accepted ones are the corpus."""
    verdicts = store.open().tables.scan(VERDICTS_TABLE).collect()
    return verdict(find_disagreements(verdicts, table.collect()), num_verdicts=verdicts.height)


@blocking_check(
    asset=EMBEDDINGS,
    additional_ins={"splits": dg.AssetIn(SPLITS)},
    partitions_def=recipes,
)
def every_model_has_a_finite_vector(
    table: pl.LazyFrame, splits: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Each model of the corpus has a finite vector by the trained and the untrained backbone."""
    frame = table.collect()
    return verdict(find_bad_vectors(frame, splits.collect()), num_vectors=frame.height)


def result_check(asset_key: dg.AssetKey, mandatory: tuple[str, ...]) -> dg.AssetChecksDefinition:
    """Make the check that a result table is valid and that nobody left a baseline out."""

    @blocking_check(
        asset=asset_key,
        name="results_hold_the_mandatory_baselines",
        description=f"The table is valid and scores {', '.join(mandatory)}.",
        partitions_def=PARTITIONS[dimension(asset_key)],
    )
    def check(table: pl.LazyFrame) -> dg.AssetCheckResult:
        from ws_pipeline.evaluation.results import validate_results

        frame = validate_results(table.collect())
        missing = sorted(set(mandatory) - set(frame["features"].unique()))
        return dg.AssetCheckResult(
            passed=not missing and frame.height > 0,
            metadata={"num_results": frame.height, "missing": missing},
        )

    return check


@blocking_check(asset=LEADERBOARD)
def the_report_is_written(table: pl.LazyFrame, home: HomeResource) -> dg.AssetCheckResult:
    """The HTML report lies where the materialisation says and is not empty."""
    path = home.folder / "report" / "report.html"
    num_bytes = path.stat().st_size if path.is_file() else 0
    num_results = table.select(pl.len()).collect().item()
    return dg.AssetCheckResult(
        passed=num_bytes > 0 and num_results > 0,
        metadata={"num_bytes": num_bytes, "num_results": num_results},
    )


@blocking_check(asset=ZOO_MODELS, partitions_def=zoos)
def every_zoo_model_is_a_whole_repo(
    context: dg.AssetCheckExecutionContext, table: pl.LazyFrame, home: HomeResource
) -> dg.AssetCheckResult:
    """Each model of the index has its config, weights and card."""
    folder = home.folder / "zoos" / context.partition_key / "repos"
    names = table.filter(pl.col("status") == "trained").collect()["name"].to_list()
    missing = [
        {"name": name, "file": file}
        for name in names
        for file in ("config.json", "model.safetensors", "README.md")
        if not (folder / name / file).is_file()
    ]
    return verdict(pl.DataFrame(missing), num_models=len(names))


@blocking_check(asset=DIVERSITY, partitions_def=zoos)
def diversity_is_finite(table: pl.LazyFrame) -> dg.AssetCheckResult:
    """There are numbers, and each is one."""
    frame = table.collect()
    numbers = frame.select(pl.col(pl.Float32, pl.Float64))
    bad = numbers.select(pl.all().is_infinite().any() | pl.all().is_nan().any())
    return dg.AssetCheckResult(
        passed=frame.height > 0 and not any(bad.row(0)), metadata={"num_rows": frame.height}
    )


TABLE_CHECKS = [
    stage_check(REPOS, None),
    stage_check(HEADERS, REPOS),
    stage_check(SELECTION, HEADERS),
    stage_check(FILES, SELECTION),
    stage_check(LAYERS, FILES),
    stage_check(SHARDS, LAYERS),
    every_file_is_stored,
    every_byte_is_accounted_for,
    splits_share_nothing,
    verdicts_and_corpus_agree,
    every_model_has_a_finite_vector,
    result_check(PROPERTIES, (TRAINED, UNTRAINED, STATISTICS, HYPER_PARAMETERS, MEAN)),
    result_check(RETRIEVAL, (TRAINED, UNTRAINED, STATISTICS, RANDOM)),
    result_check(RECONSTRUCTION, (TRAINED, UNTRAINED, MEAN)),
    result_check(COMPOSITION, (BASELINE,)),
    the_report_is_written,
    every_zoo_model_is_a_whole_repo,
    diversity_is_finite,
]
