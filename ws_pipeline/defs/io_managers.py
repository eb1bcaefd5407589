"""Tables between assets: whole Parquet files, replaced atomically. Does I/O.

Belongs here: the one IO manager. Does not: tensors, which never travel through one (an asset
returns a manifest's key, a data version and counts). A partition of an asset is one table, `<asset
key>/<partition>`; whoever depends on all partitions gets them as one frame.
"""

from collections.abc import Sequence

import dagster as dg
import polars as pl

from ws_pipeline.defs.columns import describe_columns, preview_rows
from ws_pipeline.defs.resources import StoreResource
from ws_pipeline.defs.retries import judged
from ws_pipeline.errors import MissingInputError
from ws_pipeline.storage.tables import TableStore


def table_key(asset_key: dg.AssetKey, partition: str | None = None) -> str:
    """`hub/repos/bert` for a partition, `corpus/splits` without."""
    return "/".join([*asset_key.path, *([partition] if partition else [])])


class ParquetIOManager(dg.ConfigurableIOManager):
    """Polars frames in a TableStore; loads `pl.LazyFrame`."""

    store: dg.ResourceDependency[StoreResource]

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame | pl.LazyFrame) -> None:
        """Write one asset partition's table and describe it in the materialisation."""
        partition = context.asset_partition_key if context.has_asset_partitions else None
        key = table_key(context.asset_key, partition)
        with judged(context.step_context):
            tables = self.store.open().tables
            num_rows = tables.write(key, obj)
        context.add_output_metadata(
            {
                "dagster/row_count": num_rows,
                "dagster/uri": tables.uri(key),
                "dagster/column_schema": describe_columns(obj.lazy().collect_schema()),
                "preview": dg.MetadataValue.md(preview_rows(tables.scan(key))),
            }
        )

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        """Scan one partition's table, or all partitions as one frame.

        Partitions that were never materialised are left out with a line in the log: a family that
        was found a minute ago must not stop the corpus of all others.
        """
        with judged(context.step_context):
            return self._scan(context)

    def _scan(self, context: dg.InputContext) -> pl.LazyFrame:
        tables = self.store.open().tables
        if not context.has_asset_partitions:
            return tables.scan(table_key(context.asset_key))
        partitions = sorted(context.asset_partition_keys)
        stored = [p for p in partitions if tables.exists(table_key(context.asset_key, p))]
        missing = sorted(set(partitions) - set(stored))
        if missing and stored:
            name = context.asset_key.to_user_string()
            context.log.info("%s: no table yet for %s", name, missing)
        return load_partitions(tables, context.asset_key, stored)


def load_all_partitions(tables: TableStore, asset_key: dg.AssetKey) -> pl.LazyFrame:
    """Concatenate the tables of all partitions that are stored, for checks."""
    prefix = table_key(asset_key)
    stored = [key.removeprefix(f"{prefix}/") for key in tables.keys(prefix)]
    return load_partitions(tables, asset_key, stored)


def load_partitions(
    tables: TableStore, asset_key: dg.AssetKey, partitions: Sequence[str]
) -> pl.LazyFrame:
    """Concatenate the tables of some partitions.

    Raises:
        MissingInputError: If there is none at all.
    """
    if not partitions:
        name = asset_key.to_user_string()
        raise MissingInputError(f"{name} has no table yet; materialise it first.")
    # Relaxed: a column that is null in a whole family has dtype Null there.
    return pl.concat(
        [tables.scan(table_key(asset_key, partition)) for partition in partitions],
        how="diagonal_relaxed",
    )
