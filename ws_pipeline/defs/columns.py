"""What Dagster shows of a table: its columns with their meaning, and its first rows. No I/O.

Belongs here: the words for columns that several tables share or that a name does not explain. Does
not: the schemas, which stand beside whoever makes a table.
"""

import re
from collections.abc import Mapping

import dagster as dg
import polars as pl

from ws_pipeline.defs.step import markdown_table

COLUMNS: Mapping[str, str] = {
    "hub_id": "the repo's immutable id",
    "repo_id": "its present name, OWNER/NAME",
    "revision": "one state of the repo, 40 hex digits",
    "accepted": "whether the row goes on to the next stage",
    "reason": "why it does not, a reason code; empty if it does",
    "detail": "the same in a sentence",
    "reused": "whether an earlier run's verdict was taken over",
    "family": "model_type or library; the partition",
    "licence": "as the card states it",
    "gated": "empty, auto or manual",
    "base_models": "what it says it descends from",
    "base_model_relation": "finetune, merge, quantized, adapter or empty, as claimed",
    "aliases": "names that it had before",
    "status": "how far the crawl came with it",
    "attempt": "how often it was tried",
    "crawled_at": "when the hub was asked about it last",
    "files": "path, size and sha256 of every file, as the hub states them",
    "card": "README.md",
    "tensors": "name, dtype, shape and place of every tensor",
    "dtypes": "of its tensors",
    "signature": "digest of all names and shapes",
    "num_params": "numbers in its weights",
    "num_values": "numbers that are tokenised",
    "num_bytes": "of its tensors",
    "num_tokenised_bytes": "of tensors that become tokens",
    "num_carried_bytes": "of tensors that are kept as they are",
    "num_excluded_bytes": "of tensors that are left out, with a reason",
    "manifest": "record of this stage in the store",
    "plan_manifest": "record of the layer plan in the store",
    "shard_sha256": "the packed weights, a blob of the store",
    "layers": "one entry a layer: role, shape, statistics",
    "split": "train, val or test",
    "lineage_root": "whom all of its lineage descend from; a lineage is in one split",
    "representation": "which backbone made the vector: backbone (trained) or untrained",
    "embedding": "the model's vector",
    "weights": "digest of the backbone's weights",
    "recipe": "of the backbone",
    "target": "what is predicted or measured",
    "features": "what it is predicted from; baselines among them",
    "metric": "how it is scored",
    "slice": "which held-out models it is of",
    "value": "the score",
    "low": "lower end of the interval",
    "high": "upper end of the interval",
    "num_models": "that the number is of",
}
PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 10
MAX_TYPE = 40
MAX_CELL = 60
_PLAIN = re.compile(r"(?!.*(?://|www\.))[\w ./:+-]*", re.ASCII)
_TICK = "'"


def describe_columns(schema: Mapping[str, object]) -> dg.TableSchema:
    """The schema as Dagster shows it; long struct types are cut."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name, type=_shorten(str(dtype), MAX_TYPE), description=COLUMNS.get(name)
            )
            for name, dtype in schema.items()
        ]
    )


def preview_rows(frame: pl.LazyFrame) -> str:
    """The first rows as a Markdown table: columns of single values, long ones cut.

    What a stranger wrote (a card, a licence) is shown as code, in which no link or image lives.
    """
    schema = frame.collect_schema()
    flat = [name for name, dtype in schema.items() if not dtype.is_nested()][:PREVIEW_COLUMNS]
    rows = frame.select(flat).head(PREVIEW_ROWS).collect()
    if rows.is_empty():
        return "no rows"
    shown = {
        name: [_quote(_shorten(str(value), MAX_CELL)) for value in rows[name]] for name in flat
    }
    return markdown_table(pl.DataFrame(shown))


def _quote(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else f"`{text.replace('`', _TICK)}`"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
