"""Inspection: the JSON contract of the command line, and the oddities that are found."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ws_pipeline.cli.inspection_tables import name_group, render_inspection
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.inspection import inspect_path
from ws_pipeline.weights.oddities import summarize
from ws_pipeline.weights.plan import plan_layers
from ws_pipeline_tests.weights.safetensors_bytes import write_model
from ws_pipeline_tests.weights.tiny_models import BUILDERS, build


@pytest.mark.parametrize("kind", BUILDERS)
def test_real_models_are_inspected_by_the_contract(tmp_path: Path, kind: str) -> None:
    found = json.loads(json.dumps(inspect_path(build(kind, tmp_path / kind))))
    tensors = found["tensors"]
    assert {"name", "role", "shape", "dtype", "num_params"} <= tensors[0].keys()
    assert found["num_params"] == sum(tensor["num_params"] for tensor in tensors)
    assert found["num_params"] == sum(found["roles"].values()) == sum(found["dtypes"].values())
    assert found["num_bytes"] == sum(found["treatments"].values())
    assert not [odd for odd in found["oddities"] if odd["kind"] == "non_finite_values"]


def write_oddities(folder: Path) -> Path:
    random = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    dead, bad = random.copy(), random.copy()
    dead[1] = 0
    bad[0, 0] = np.nan
    return write_model(
        folder / "[bold]m.safetensors",
        {
            "a.weight": random,
            "b.weight": random,
            "c.weight": dead,
            "d.weight": np.full((4, 4), 0.5, np.float32),
            "e.weight": bad,
            "f[red].weight": np.ones((4, 4), np.int64),
        },
    )


def test_oddities_are_named_with_their_tensor(tmp_path: Path) -> None:
    found = inspect_path(write_oddities(tmp_path))
    assert [(odd["kind"], odd["tensor"]) for odd in found["oddities"]] == [
        ("duplicated_layer", "b.weight"),
        ("dead_rows", "c.weight"),
        ("constant_layer", "d.weight"),
        ("non_finite_values", "e.weight"),
    ]
    assert found["oddities"][1]["detail"] == "1 of 4 outputs are all zero"


def test_headers_alone_are_enough_without_values(tmp_path: Path) -> None:
    found = inspect_path(write_oddities(tmp_path), read_values=False)
    assert found["oddities"] == []
    assert not found["reads_values"]
    assert not [layer for layer in found["layers"] if "std" in layer]
    assert "Headers only" in show(found, 120)


def test_statistics_are_those_of_the_weights(tmp_path: Path) -> None:
    values = (1e4 + np.random.default_rng(0).standard_normal((64, 32))).astype(np.float32)
    found = inspect_path(write_model(tmp_path / "m.safetensors", {"fc.weight": values}))
    (layer,) = found["layers"]
    wide = values.astype(np.float64)
    assert layer["mean"] == pytest.approx(wide.mean(), rel=1e-12)
    assert layer["std"] == pytest.approx(wide.std(), rel=1e-9)
    assert (layer["min"], layer["max"]) == (wide.min(), wide.max())


@pytest.mark.parametrize("chunk", [1, 5, 7, 24, 10**6])
@pytest.mark.parametrize("name", ["conv.weight", "conv.kernel", "up.weight"])
def test_any_chunks_give_the_same_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, name: str
) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 2, 5)).astype(np.float32)
    bias = np.ones(3 if name == "up.weight" else 5 if "kernel" in name else 4, np.float32)
    axis = {"up.weight": 1, "conv.kernel": 3, "conv.weight": 0}[name]
    np.moveaxis(weight, axis, 0)[2] = 0
    bias_name = name.rpartition(".")[0] + ".bias"
    path = write_model(tmp_path / "m.safetensors", {name: weight, bias_name: bias})
    monkeypatch.setattr("ws_pipeline.weights.oddities.CHUNK", chunk)
    checkpoint = Checkpoint.open(path)
    (layer,) = plan_layers(list(checkpoint.tensors.values()), {}).layers
    summary = summarize(checkpoint, layer)
    assert summary.alive.tolist() == [row != 2 for row in range(bias.size)]
    assert summary.digest == hashlib.blake2b(weight.tobytes(), digest_size=16).digest()
    assert summary.std == pytest.approx(weight.astype(np.float64).std())
    assert (summary.low, summary.high) == (weight.min(), weight.max())


def test_running_statistics_that_are_not_finite_are_odd_though_they_are_carried(
    tmp_path: Path,
) -> None:
    path = write_model(
        tmp_path / "m.safetensors",
        {"bn.weight": np.ones(9, np.float32), "bn.running_var": np.full(9, np.inf, np.float32)},
    )
    kinds = {odd["tensor"]: odd["kind"] for odd in inspect_path(path)["oddities"]}
    assert kinds == {"bn.weight": "constant_layer", "bn.running_var": "non_finite_values"}


def show(found: dict[str, Any], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render_inspection(found, width=width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= width
    return str(text)


def test_the_rendering_shows_names_as_they_are(tmp_path: Path) -> None:
    text = show(inspect_path(write_oddities(tmp_path)), 140)
    assert "96 parameters, 448 bytes, 6 tensors" in text
    assert "f[red].weight  carried: integer_tensor" in text
    assert "non_finite_values" in text


@pytest.mark.parametrize("width", [80, 120])
def test_equal_blocks_make_one_row_and_fit_the_terminal(tmp_path: Path, width: int) -> None:
    text = show(inspect_path(build("gpt2", tmp_path)), width)
    assert "transformer.h.{0-1}.ln_1." in text
    assert "x2, +bias, output" in text
    assert "No oddities" not in text  # fresh norms are constant


def test_heads_of_a_fused_projection_are_counted_where_the_config_says(tmp_path: Path) -> None:
    layers = {layer["name"]: layer for layer in inspect_path(build("gpt2", tmp_path))["layers"]}
    fused = layers["transformer.h.0.attn.c_attn.weight"]
    assert (fused["num_heads"], fused["num_key_heads"], fused["head_size"]) == (2, 2, 8)
    assert "num_heads" not in layers["transformer.wte.weight"]


def test_the_numbers_that_differ_are_shown_once() -> None:
    assert name_group(["a.3.w1", "a.4.w1", "a.5.w1"]) == "a.{3-5}.w1"
    assert name_group(["h.0.w", "h.2.w"]) == "h.{0,2}.w"
    assert name_group([f"h.{place}.w" for place in (1, 3, 5, 7, 11)]) == "h.{1,3,...,11}.w"
    assert name_group(["norm.weight"]) == "norm.weight"
