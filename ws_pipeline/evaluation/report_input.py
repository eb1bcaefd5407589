"""What a report is made of. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from ws_pipeline.evaluation.properties import PREDICTION_SCHEMA
from ws_pipeline.evaluation.results import RESULT_SCHEMA
from ws_pipeline.evaluation.targets import MISSING_SCHEMA

DROPPED_SCHEMA = pl.Schema({"stage": pl.String, "reason": pl.String, "num_repos": pl.Int64})
EDGE_SCHEMA = pl.Schema({"child": pl.String, "parent": pl.String})
LOSS_SCHEMA = pl.Schema({"step": pl.Int64, "name": pl.String, "value": pl.Float64})
EMBEDDING_SCHEMA = pl.Schema([("hub_id", pl.String()), ("embedding", pl.List(pl.Float32))])


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportInput:
    """What a report is made of.

    Attributes:
        provenance: What was done: recipe, digests, versions, seeds, snapshot; mappings may nest.
        corpus: One row per model: hub_id, repo_id, family, split, lineage_root, num_params, and,
            if known, num_bytes.
        results: Result tables of all recipes, concatenated.
        recipe: Which recipe the findings and figures are of; the first of the results where None.
        dropped: Repos that did not go in: stage, reason, num_repos (family and others are summed).
        missing: Models that evaluations left out (MISSING_SCHEMA).
        predictions: Of the property probes (PREDICTION_SCHEMA).
        embeddings: hub_id, embedding: drawn as the latent map.
        losses: Training curves: step, name, value.
        composition: Result table of the composition study; no rows where it was not made.
        edges: Of the lineage graph (child, parent and, if known, contradiction): on the atlas.
        atlas: Where the atlas lies beside the report; "" where there is none.
        limitations: Sentences beside those that follow from the numbers.
        title: Heading of the page.
    """

    provenance: Mapping[str, object]
    corpus: pl.DataFrame
    results: pl.DataFrame
    recipe: str | None = None
    dropped: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DROPPED_SCHEMA))
    missing: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MISSING_SCHEMA))
    predictions: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=PREDICTION_SCHEMA)
    )
    embeddings: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EMBEDDING_SCHEMA))
    losses: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LOSS_SCHEMA))
    composition: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=RESULT_SCHEMA))
    edges: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EDGE_SCHEMA))
    atlas: str = ""
    limitations: tuple[str, ...] = ()
    title: str = "Weight Space Pipeline"
