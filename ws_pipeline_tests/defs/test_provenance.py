import dagster as dg
import polars as pl
import pytest

from ws_pipeline.defs.assets.corpus import SPLITS
from ws_pipeline.defs.assets.hub import HEADERS, REPOS, SELECTION
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.io_managers import ParquetIOManager, load_partitions
from ws_pipeline.defs.provenance import VersionReader
from ws_pipeline.defs.resources import HomeResource, StoreResource
from ws_pipeline.errors import MissingInputError
from ws_pipeline.storage.store import Store


def report(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, version: str
) -> None:
    tags = {"dagster/data_version": version}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=key, partition=partition, tags=tags)
    )


def test_a_stage_is_made_from_its_own_partition_and_the_corpus_from_all(
    instance: dg.DagsterInstance,
) -> None:
    instance.add_dynamic_partitions("family", ["bert", "vit"])
    for family in ("bert", "vit"):
        report(instance, REPOS, family, f"repos-{family}")
        report(instance, SHARDS, family, f"shards-{family}")
    reader = VersionReader(instance=instance)
    assert reader.input_versions(HEADERS, "vit", [REPOS]) == {"hub/repos/vit": "repos-vit"}
    assert reader.input_versions(SPLITS, None, [SHARDS]) == {
        "tokens/shards/bert": "shards-bert",
        "tokens/shards/vit": "shards-vit",
    }


def test_more_than_a_hundred_families_are_each_told_apart(instance: dg.DagsterInstance) -> None:
    names = [f"family{i:03}" for i in range(120)]
    instance.add_dynamic_partitions("family", names)
    for name in names:
        report(instance, SHARDS, name, f"first-{name}")
    before = VersionReader(instance=instance).input_versions(SPLITS, None, [SHARDS])
    report(instance, SHARDS, names[3], "second")
    report(instance, SHARDS, names[-1], f"first-{names[-1]}")
    after = VersionReader(instance=instance).input_versions(SPLITS, None, [SHARDS])
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"tokens/shards/family003"}


def test_a_family_that_was_taken_out_is_no_input_any_more(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("family", ["bert", "vit"])
    for family in ("bert", "vit"):
        report(instance, SHARDS, family, "1")
    instance.delete_dynamic_partition("family", "bert")
    found = VersionReader(instance=instance).input_versions(SPLITS, None, [SHARDS])
    assert found == {"tokens/shards/vit": "1"}


def test_what_was_read_is_remembered_until_it_is_forgotten(instance: dg.DagsterInstance) -> None:
    reader = VersionReader(instance=instance)
    report(instance, SPLITS, None, "1")
    assert reader.versions(SPLITS) == {"": "1"}
    report(instance, SPLITS, None, "2")
    assert reader.versions(SPLITS) == {"": "1"}
    reader.forget([SPLITS])
    assert reader.versions(SPLITS) == {"": "2"}


def test_a_config_digest_follows_only_what_its_asset_reads() -> None:
    model, embeddings = dg.AssetKey(["backbone", "model"]), dg.AssetKey(["backbone", "embeddings"])
    assert config_digest(model, "tiny") != config_digest(model, "small")
    assert config_digest(embeddings, "tiny") != config_digest(model, "tiny")
    assert config_digest(REPOS, "bert") == config_digest(REPOS, "vit")
    assert config_digest(SELECTION, "bert", policy="tiny") == config_digest(
        SELECTION, "bert", policy="small"
    )
    assert config_digest(SPLITS, "", policy="tiny") != config_digest(SPLITS, "", policy="hub-small")


def io_manager(store: Store) -> ParquetIOManager:
    return ParquetIOManager(store=StoreResource(home=HomeResource(), root=store.root))


def test_partitions_come_back_as_one_frame_even_if_a_column_is_null_in_one(
    tmp_path: object,
) -> None:
    store = Store.open(str(tmp_path))
    store.tables.write("hub/repos/bert", pl.DataFrame({"name": ["a"], "size": [1]}))
    store.tables.write("hub/repos/vit", pl.DataFrame({"name": ["b"], "size": [None]}))
    frame = load_partitions(store.tables, REPOS, ["bert", "vit"]).collect()
    assert frame.rows() == [("a", 1), ("b", None)]
    with pytest.raises(MissingInputError, match=r"hub/repos has no table yet; materialise it"):
        load_partitions(store.tables, REPOS, [])


def test_an_asset_travels_as_a_table_with_rows_place_and_columns(tmp_path: object) -> None:
    store = Store.open(str(tmp_path))

    @dg.asset
    def numbers() -> pl.DataFrame:
        return pl.DataFrame({"n": [1, 2, 3]})

    @dg.asset
    def total(numbers: pl.LazyFrame) -> pl.DataFrame:
        return numbers.sum().collect()

    result = dg.materialize([numbers, total], resources={"io_manager": io_manager(store)})
    (made,) = result.asset_materializations_for_node("numbers")
    assert made.metadata["dagster/row_count"].value == 3
    assert str(made.metadata["dagster/uri"].value).endswith("numbers.parquet")
    assert store.tables.scan("total").collect()["n"].item() == 6
