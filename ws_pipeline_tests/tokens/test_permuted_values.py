"""Values of a permuted model, read from the model as it is stored, are those of the written one."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ws_pipeline.errors import WeightsError
from ws_pipeline.tokens.permuted_values import PermutedValues, map_layers
from ws_pipeline.tokens.records import TokenLayer, derive_token_layers
from ws_pipeline.tokens.shard_format import open_shard
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.model_plan import plan_model
from ws_pipeline.weights.packing import VALUES_PREFIX, write_shard
from ws_pipeline.weights.plan import Layer
from ws_pipeline.weights.records import layer_to_record
from ws_pipeline.weights.symmetry.finding import find_symmetry
from ws_pipeline.weights.symmetry.matrix_order import order_matrix, shapes_of_layers
from ws_pipeline.weights.symmetry.permutation import (
    Permutation,
    draw_permutation,
    permute_state,
)
from ws_pipeline_tests.weights.symmetry.networks import Arrays, build_network

KINDS = ("mlp", "cnn_batchnorm", "resnet18", "vit", "bert_mlm", "gpt2", "mistral_gqa", "t5")
DTYPES = ("F16", "F32")


class MemoryValues:
    """A shard's values in memory; counts what is read."""

    def __init__(self, shard: Checkpoint, dtypes: Sequence[str] = DTYPES) -> None:
        self.num_values = 0
        self.arrays = {
            number: shard.read_flat(VALUES_PREFIX + name)
            for number, name in enumerate(dtypes)
            if VALUES_PREFIX + name in shard.tensors
        }

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:
        size = len(out) // self.arrays[dtype].itemsize
        self.num_values += size
        out[:] = self.arrays[dtype][start : start + size].tobytes()


def read_pair(kind: str) -> tuple[Arrays, Arrays, Permutation]:
    """A model in two precisions, its permuted twin, and the permutation."""
    network = build_network(kind)
    state = {
        name: array.astype(np.float16 if name.endswith("1.weight") else np.float32)
        if array.dtype.kind == "f"
        else array
        for name, array in network.read().items()
    }
    symmetry = find_symmetry({n: a.shape for n, a in state.items()}, network.config)
    drawn = draw_permutation(
        symmetry, {n: a.shape for n, a in state.items()}, generator=np.random.default_rng(0)
    )
    return state, permute_state(state, drawn), drawn


def pack(
    state: Arrays, folder: Path
) -> tuple[Checkpoint, tuple[TokenLayer, ...], tuple[Layer, ...]]:
    folder.mkdir()
    contiguous = {name: np.ascontiguousarray(array) for name, array in state.items()}
    save_file(contiguous, folder / "model.safetensors")
    checkpoint = Checkpoint.open(folder)
    plan, out = plan_model(checkpoint), BytesIO()
    statistics = write_shard(checkpoint, plan, out)
    records = map(layer_to_record, plan.layers, statistics)
    token_layers = derive_token_layers(records)
    (folder / "shard").write_bytes(out.getvalue())
    return open_shard(folder / "shard"), token_layers, plan.layers


@pytest.mark.parametrize("kind", KINDS)
def test_any_range_is_that_of_the_permuted_shard(kind: str, tmp_path: Path) -> None:
    state, twin, drawn = read_pair(kind)
    shard, token_layers, layers = pack(state, tmp_path / "one")
    twin_shard, twin_layers, _ = pack(twin, tmp_path / "twin")
    for ours, theirs in zip(token_layers, twin_layers, strict=True):
        assert (ours.name, ours.offset, ours.rows, ours.cols, ours.scale_exponent) == (
            theirs.name, theirs.offset, theirs.rows, theirs.cols, theirs.scale_exponent,
        )  # fmt: skip
        assert (ours.mean, ours.std) == pytest.approx((theirs.mean, theirs.std), rel=1e-6)
    stored = MemoryValues(shard)
    permuted = PermutedValues(stored, map_layers(token_layers, layers, dtypes=DTYPES), drawn)
    generator = np.random.default_rng(1)
    for number, expected in MemoryValues(twin_shard).arrays.items():
        bounds = np.sort(generator.integers(0, len(expected) + 1, (60, 2)), axis=1)
        for start, stop in [(0, len(expected)), *bounds.tolist()]:
            out = bytearray((stop - start) * expected.itemsize)
            permuted.read_into(number, start, memoryview(out))
            assert bytes(out) == expected[start:stop].tobytes()
        assert not np.array_equal(stored.arrays[number], expected)


def test_a_short_range_of_a_large_layer_reads_its_rows_alone(tmp_path: Path) -> None:
    state = {
        "layers.0.weight": np.random.default_rng(0).normal(size=(1000, 50)).astype(np.float32),
        "layers.1.weight": np.ones((3, 1000), dtype=np.float32),
    }
    shapes = {name: array.shape for name, array in state.items()}
    symmetry = find_symmetry(shapes, {"model_type": "mlp", "architectures": ["Mlp"]})
    drawn = draw_permutation(symmetry, shapes, generator=np.random.default_rng(0))
    shard, token_layers, layers = pack(state, tmp_path / "one")
    stored = MemoryValues(shard)
    permuted = PermutedValues(stored, map_layers(token_layers, layers, dtypes=DTYPES), drawn)
    permuted.read_into(1, 120, memoryview(bytearray(200 * 4)))
    assert stored.num_values == 5 * 50


def test_shapes_of_a_plan_are_those_of_the_file(tmp_path: Path) -> None:
    state, _, _ = read_pair("gpt2")
    _, _, layers = pack(state, tmp_path / "one")
    assert shapes_of_layers(layers) == {name: array.shape for name, array in state.items()}


def test_a_bias_that_does_not_follow_its_rows_is_a_defect(tmp_path: Path) -> None:
    state = {name: array.astype(np.float32) for name, array in build_network("mlp").read().items()}
    _, _, layers = pack(state, tmp_path / "one")
    layer = next(layer for layer in layers if layer.name == "layers.0.weight")
    rolled = np.roll(np.arange(layer.rows), 1)
    for key in (("layers.0.weight", 0), ("layers.0.bias", 0)):
        with pytest.raises(WeightsError, match=r"layers\.0\.bias must be permuted like the rows"):
            order_matrix(layer, {key: rolled})
