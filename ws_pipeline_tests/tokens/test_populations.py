"""Populations: what comes out is what each model's own shard would hold, to the bit."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ws_pipeline.errors import WeightsError
from ws_pipeline.tokens import populations
from ws_pipeline.tokens.pack_folder import pack_path
from ws_pipeline.tokens.populations import pack_population
from ws_pipeline.tokens.shard_format import SHARD_NAME, open_shard
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.layers import plan_checkpoint
from ws_pipeline_tests.weights.safetensors_bytes import write_model

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
    if dtype is np.float64:  # whose squares would overflow
        models[2] = models[3]
    stacked = {name: np.stack([model[name] for model in models]) for name in SHAPES}
    packed = None
    for index, model in enumerate(models):
        path = write_model(tmp_path / f"{index}.safetensors", model)
        plan, statistics = plan_checkpoint(Checkpoint.open(path))
        packed = packed or pack_population(plan.layers, stacked)
        manifest = pack_path(path, tmp_path / str(index))
        shard = open_shard(tmp_path / str(index) / SHARD_NAME)
        (values,) = packed.values.values()
        (name,) = shard.tensors
        assert values[index].tobytes() == shard.read(name).tobytes()
        exponents = [layer["scale_exponent"] for layer in manifest["layers"]]
        assert packed.exponents[index].tolist() == exponents
        expected = [
            [np.nan if number is None else number for number in measured.to_dict().values()]
            for measured in statistics
            if measured is not None
        ]
        np.testing.assert_array_equal(packed.statistics[index], expected)


def test_a_population_with_a_broken_model_is_refused(tmp_path: Path) -> None:
    models = make_models(np.float32, 3)
    path = write_model(tmp_path / "m.safetensors", models[0])
    plan, _ = plan_checkpoint(Checkpoint.open(path))
    models[1]["conv.bias"][0] = np.nan
    stacked = {name: np.stack([model[name] for model in models]) for name in SHAPES}
    with pytest.raises(WeightsError, match=r"finite; layer conv\.weight holds NaN"):
        pack_population(plan.layers, stacked)
