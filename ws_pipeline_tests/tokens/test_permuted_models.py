"""Windows of permuted models are those of models with the same function, and are drawn exactly."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file

from ws_pipeline.backbone.expansion import to_windows
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.model_symmetry import ModelSymmetry, read_model_symmetry
from ws_pipeline.tokens.permuted_models import PermutedModels
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.tokens.window_batch import WindowBatch
from ws_pipeline.tokens.windows import WindowDataset
from ws_pipeline.weights.layers import plan_family
from ws_pipeline.weights.matrix import split_matrix
from ws_pipeline_tests.weights.stage_tables import open_store, store_repos
from ws_pipeline_tests.weights.symmetry.networks import Arrays, Network, build_network
from ws_pipeline_tests.weights.tiny_models import build

KINDS = ("mlp", "cnn", "gpt2", "vit")
PAIR = ("stored", "permuted")


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    return {kind: build_network(kind, torch.float32) for kind in KINDS}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def rows(
    store: Store, networks: dict[str, Network], tmp_path_factory: pytest.TempPathFactory
) -> pl.DataFrame:
    """The networks, and one whose wiring nobody knows."""
    root = tmp_path_factory.mktemp("models")
    for kind, network in networks.items():
        (root / kind).mkdir()
        state = {name: np.ascontiguousarray(array) for name, array in network.read().items()}
        save_file(state, root / kind / "model.safetensors")
        (root / kind / "config.json").write_text(json.dumps(dict(network.config), default=str))
    build("lstm", root / "lstm")
    files = store_repos(store, {kind: root / kind for kind in (*KINDS, "lstm")})
    shards = pack_family(store, plan_family(store, files))
    return shards.with_columns(weight=pl.lit(1.0))


def make_dataset(store: Store, rows: pl.DataFrame, **changes: object) -> WindowDataset:
    settings = {"window_size": 40, "batch_size": 6, "num_steps": 40, "seed": 3, "unit_orders": PAIR}
    return WindowDataset(store, rows, layout=TokenLayout(token_size=10), **settings | changes)


def rebuild(model: ModelSymmetry, batch: WindowBatch, window: int) -> Arrays:
    """A model's tensors from one window that holds all of it."""
    windows = to_windows(batch, torch.device("cpu"))
    values = windows.tokens[window][windows.mask[window]].numpy()
    plan = {layer.name: layer for layer in model.layers}
    state: Arrays = {}
    for layer in model.token_layers:
        matrix = values[: layer.num_values].reshape(layer.rows, layer.cols)
        values = values[layer.num_values :]
        planned = plan[layer.name]
        state[layer.name], bias = split_matrix(planned, matrix)
        if bias is not None:
            state[planned.bias_name] = bias
    for layer in model.layers:
        if layer.tied_to:
            state[layer.name] = state[layer.tied_to]
    assert not len(values)
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_the_pair_is_the_model_and_another_one_of_the_same_function(
    store: Store, rows: pl.DataFrame, networks: dict[str, Network], kind: str
) -> None:
    row = rows.filter(repo_id=f"zoo/{kind}")
    dataset = make_dataset(store, row, window_size=100_000, batch_size=2)
    model = read_model_symmetry(store, row["manifest"][0])
    batch = dataset.read(5)
    states = [rebuild(model, batch, window) for window in range(4)]
    network = networks[kind]
    original = network.read()
    expected = network.run()
    try:
        for state in states:
            network.write({**original, **state})
            torch.testing.assert_close(network.run(), expected, rtol=1e-3, atol=1e-4)
    finally:
        network.write(original)
    for stored, permuted in zip(states[:2], states[2:], strict=True):
        assert all(np.array_equal(stored[name], original[name]) for name in stored)
        assert any(not np.array_equal(permuted[name], original[name]) for name in permuted)
    first, second = states[2:]
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_a_pair_shows_the_same_places_of_the_same_models(store: Store, rows: pl.DataFrame) -> None:
    dataset = make_dataset(store, rows)
    unknown = rows["repo_id"].to_list().index("zoo/lstm")
    moved = 0
    for step in range(20):
        batch = dataset.read(step)
        windows = to_windows(batch, torch.device("cpu"))
        assert np.array_equal(batch.models[:6], batch.models[6:])
        for part in (windows.mask, windows.positions, windows.scale):
            assert torch.equal(part[:6], part[6:])
        for window, model in enumerate(batch.models[:6].tolist()):
            same = torch.equal(windows.tokens[window], windows.tokens[window + 6])
            assert same or model != unknown
            moved += not same
    assert moved > 60


def test_every_process_and_every_resumption_draws_the_same_orders(
    store: Store, rows: pl.DataFrame
) -> None:
    whole = make_dataset(store, rows)
    expected = {step: to_windows(whole.read(step), torch.device("cpu")) for step in range(30)}
    again = make_dataset(store, rows)
    halves = [make_dataset(store, rows, rank=rank, num_processes=2) for rank in range(2)]
    for step in (29, 3):  # neither in order nor from the start
        assert torch.equal(
            to_windows(again.read(step), torch.device("cpu")).tokens, expected[step].tokens
        )
        for rank, half in enumerate(halves):
            tokens = to_windows(half.read(step), torch.device("cpu")).tokens
            share = slice(3 * rank, 3 * rank + 3)
            assert torch.equal(tokens[:3], expected[step].tokens[:6][share])
            assert torch.equal(tokens[3:], expected[step].tokens[6:][share])


def test_without_a_pair_all_windows_are_permuted(store: Store, rows: pl.DataFrame) -> None:
    pairs, alone = make_dataset(store, rows), make_dataset(store, rows, unit_orders=("permuted",))
    assert alone.num_windows == 6
    for step in (0, 7):
        both = to_windows(pairs.read(step), torch.device("cpu")).tokens
        assert torch.equal(to_windows(alone.read(step), torch.device("cpu")).tokens, both[6:])


def test_what_is_known_of_an_architecture_is_kept_once(
    store: Store, rows: pl.DataFrame, tmp_path: Path, networks: dict[str, Network]
) -> None:
    state = {name: array * 2 for name, array in networks["mlp"].read().items()}
    twin = tmp_path / "twin"
    twin.mkdir()
    save_file(state, twin / "model.safetensors")
    (twin / "config.json").write_text(json.dumps(dict(networks["mlp"].config), default=str))
    files = store_repos(store, {"twin": twin})
    shard = pack_family(store, plan_family(store, files))
    manifests = [*rows.filter(repo_id="zoo/mlp")["manifest"], *shard["manifest"]]
    models = PermutedModels(store, manifests, seed=0)
    assert models._symmetry(0) is models._symmetry(1)


def test_a_drawn_permutation_is_that_of_its_groups_whatever_is_read_first(
    store: Store, rows: pl.DataFrame
) -> None:
    from ws_pipeline.tokens.drawn_permutation import DrawnPermutation
    from ws_pipeline.weights.symmetry.permutation import permute_state

    model = read_model_symmetry(store, rows.filter(repo_id="zoo/gpt2")["manifest"][0])
    one, other = (
        DrawnPermutation(model.symmetry, model.parts, model.shapes, (1, 2, 3)) for _ in range(2)
    )
    backwards = {key: other[key] for key in reversed(list(other))}
    assert all(np.array_equal(one[key], backwards[key]) for key in one)
    assert {tensor for tensor, _ in one} == model.symmetry.tensors
    assert len(one) == len(backwards)
    state = {name: np.arange(np.prod(shape)).reshape(shape) for name, shape in model.shapes.items()}
    moved = permute_state(state, one)
    assert all(np.array_equal(np.sort(moved[n], axis=None), state[n].ravel()) for n in state)
