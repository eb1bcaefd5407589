"""Gathers what the HTML report shows from the store's tables and the runs' folders. Does I/O.

Belongs here: which table goes where. Does not: any figure or sentence (`evaluation.report`).
"""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.backbone.history import read_history
from ws_pipeline.defs.assets.backbone import EMBEDDINGS
from ws_pipeline.defs.assets.composition import COMPOSITION
from ws_pipeline.defs.assets.corpus import LINEAGE_TABLE, SPLITS
from ws_pipeline.defs.held_out import read_held_out
from ws_pipeline.defs.io_managers import table_key
from ws_pipeline.defs.left_out import count_dropped
from ws_pipeline.defs.runs import TRAINED, find_model
from ws_pipeline.evaluation.atlas import ATLAS_NAME
from ws_pipeline.evaluation.report_input import EDGE_SCHEMA, LOSS_SCHEMA, ReportInput
from ws_pipeline.evaluation.results import RESULT_SCHEMA
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.recipes import recipe, to_dict
from ws_pipeline.storage.store import Store

_PACKAGES = ("ws_pipeline", "torch", "numpy", "polars", "scikit-learn", "scipy")


def gather_report(home: Path, store: Store, results: pl.DataFrame) -> ReportInput:
    """Put together the report on the first recipe of the results, with the others beside it."""
    chosen = recipe(str(results["recipe"][0]))
    splits = store.tables.scan(table_key(SPLITS)).collect()
    corpus = read_held_out(home, store, chosen.name, splits)
    model_dir = find_model(home, chosen.name)
    embeddings = store.tables.scan(table_key(EMBEDDINGS, chosen.name))
    return ReportInput(
        provenance={
            "versions": read_versions(),
            "seeds": {
                "training": chosen.training.seed,
                "evaluation": chosen.evaluation.seed,
                "splits": chosen.splits.seed,
            },
            "recipe": chosen.name,
            "recipe digest": chosen.digest(),
            "model": str(model_dir.relative_to(home)),
            "training": to_dict(chosen.training),
            "selection": to_dict(chosen.selection),
            "corpus": to_dict(chosen.corpus),
            "splits": to_dict(chosen.splits),
        },
        corpus=corpus,
        results=results,
        recipe=chosen.name,
        dropped=count_dropped(Ledger(store=store)),
        missing=_concat(store, "evaluation/properties_missing", results["recipe"].unique()),
        predictions=_concat(store, "evaluation/properties_predictions", results["recipe"].unique()),
        embeddings=embeddings.filter(pl.col("representation") == TRAINED)
        .select("hub_id", pl.col("embedding").cast(pl.List(pl.Float32)))
        .collect(),
        losses=read_losses(model_dir.parent),
        composition=_read_or_empty(store, table_key(COMPOSITION), RESULT_SCHEMA),
        edges=_read_or_empty(store, LINEAGE_TABLE, EDGE_SCHEMA),
        atlas=ATLAS_NAME,
    )


def read_versions() -> dict[str, str]:
    """What the numbers were made with."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def read_losses(folder: Path) -> pl.DataFrame:
    """The training's curves as (step, name, value)."""
    rows = [
        (point.step, name, float(value))
        for point in read_history(folder)
        for name, value in point.values.items()
        if "loss" in name
    ]
    return pl.DataFrame(rows, schema=LOSS_SCHEMA, orient="row")


def _read_or_empty(store: Store, key: str, schema: Mapping[str, Any]) -> pl.DataFrame:
    """A table; without rows in a store that has none, of an earlier version or of fewer assets."""
    if not store.tables.exists(key):
        return pl.DataFrame(schema=schema)
    return store.tables.scan(key).collect()


def _concat(store: Store, prefix: str, names: Iterable[str]) -> pl.DataFrame:
    keys = [key for name in sorted(names) if store.tables.exists(key := f"{prefix}/{name}")]
    return pl.concat([store.tables.scan(key).collect() for key in keys])
