"""A corpus row's manifests are enough to see its model permuted."""

import numpy as np
import polars as pl
import pytest

from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.batch_plan import F32
from ws_pipeline.tokens.layer_table import DTYPES
from ws_pipeline.tokens.model_symmetry import ModelSymmetry, draw_view, read_model_symmetry
from ws_pipeline.tokens.shard_format import open_shard
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.weights.layers import plan_family
from ws_pipeline_tests.tokens.test_permuted_values import MemoryValues
from ws_pipeline_tests.weights.stage_tables import open_store, store_repos
from ws_pipeline_tests.weights.tiny_models import build


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("symmetry"))


@pytest.fixture(scope="module")
def rows(store: Store, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder = tmp_path_factory.mktemp("models")
    files = store_repos(store, {kind: build(kind, folder / kind) for kind in ("gpt2", "lstm")})
    return pack_family(store, plan_family(store, files))


def open_row(store: Store, rows: pl.DataFrame, name: str) -> tuple[MemoryValues, ModelSymmetry]:
    row = rows.filter(repo_id=f"zoo/{name}").row(0, named=True)
    shard = open_shard(store.blobs.local_path(row["shard_sha256"]))
    return MemoryValues(shard, DTYPES), read_model_symmetry(store, row["manifest"])


def test_a_view_moves_values_within_their_layers(store: Store, rows: pl.DataFrame) -> None:
    values, model = open_row(store, rows, "gpt2")
    assert len(model.symmetry.groups) == 5  # two blocks with heads and an MLP, and the stream
    stored = values.arrays[F32]
    views = []
    for key in ((0, 1, 2), (0, 1, 2), (0, 1, 3)):
        seen = np.empty_like(stored)
        draw_view(values, model, key).read_into(F32, 0, seen.view(np.uint8).data)
        views.append(seen)
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])
    assert not np.array_equal(views[0], stored)
    for layer in model.token_layers:
        run = slice(layer.offset, layer.offset + layer.num_values)
        assert np.array_equal(np.sort(views[0][run]), np.sort(stored[run]))


def test_a_model_whose_wiring_is_not_known_is_seen_as_it_is(
    store: Store, rows: pl.DataFrame
) -> None:
    values, model = open_row(store, rows, "lstm")
    assert model.symmetry.gaps
    assert draw_view(values, model, (0,)) is values
