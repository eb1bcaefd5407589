"""Populations: what comes out is what each model's own shard would hold, to the bit."""

from io import BytesIO
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ws_pipeline.weights import populations
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.model_plan import plan_model
from ws_pipeline.weights.packing import write_shard
from ws_pipeline.weights.plan import plan_layers
from ws_pipeline.weights.populations import (
    is_small,
    pack_population,
    stack_tensors,
    write_shards,
)
from ws_pipeline_tests.weights.safetensors_bytes import write_model
from ws_pipeline_tests.weights.test_plan import info

SHAPES = {
    "conv.weight": (6, 3, 5, 5),
    "conv.bias": (6,),
    "h.0.mlp.c_fc.weight": (10, 40),
    "h.0.mlp.c_fc.bias": (40,),
    "norm.weight": (6,),
    "head.weight": (4, 30),
}


def make_models(dtype: Any, count: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(0)
    models = []
    for index in range(count):
        scale = 10.0 ** (index % 5 - 2)
        models.append(
            {
                name: (scale * rng.standard_normal(shape)).astype(dtype)
                for name, shape in SHAPES.items()
            }
        )
    # A constant layer, and one that cannot be scaled without losing bits.
    models[1]["norm.weight"] = np.ones(6, dtype)
    models[2]["head.weight"] = np.full((4, 30), ml_dtypes.finfo(dtype).max, dtype)
    models[2]["head.weight"][0] = ml_dtypes.finfo(dtype).smallest_subnormal
    return models


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_a_population_is_packed_as_its_models_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    monkeypatch.setattr(populations, "MODELS_AT_ONCE", 4)
    models = make_models(dtype, 10)
    checkpoints = []
    for index, model in enumerate(models):
        # Headers of different lengths before data that is laid out alike.
        metadata = {"note": "x" * index}
        path = write_model(tmp_path / f"{index}.safetensors", model, metadata)
        checkpoints.append(Checkpoint.open(path))
    plan = plan_model(checkpoints[0])
    assert is_small(plan)
    tensors = stack_tensors(checkpoints)
    shards, packed = write_shards(plan, tensors, checkpoints[0].tensors)
    # Float64 at the end of its range is beyond float32.
    assert packed.is_fit.tolist() == [dtype is not np.float64 or i != 2 for i in range(10)]
    for index, checkpoint in enumerate(checkpoints):
        if not packed.is_fit[index]:
            continue
        out = BytesIO()
        statistics = write_shard(checkpoint, plan, out)
        assert shards[index] == out.getvalue()
        expected = [
            [np.nan if number is None else number for number in measured.to_dict().values()]
            for measured in statistics
            if measured is not None
        ]
        np.testing.assert_array_equal(packed.statistics[index], expected)


@pytest.mark.parametrize("name", ["conv.bias", "head.weight", "bn.running_var"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_model_is_said_and_spoils_no_other(name: str, bad: float) -> None:
    models = make_models(np.float32, 5)
    for model in models:
        model["bn.running_var"] = np.ones(6, np.float32)
    models[1][name].flat[-1] = bad
    stacked = {name: np.stack([model[name] for model in models]) for name in models[0]}
    infos = [info(key, array.shape, "F32") for key, array in models[0].items()]
    packed = pack_population(plan_layers(infos, {}).layers, stacked)
    assert packed.is_fit.tolist() == [True, False, True, True, True]
