"""Inspection: the JSON contract of the command line, and the oddities that are found."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ws_pipeline.weights.inspection import inspect_path, render_inspection
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
    assert inspect_path(write_oddities(tmp_path), read_values=False)["oddities"] == []


def test_the_rendering_shows_names_as_they_are(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(render_inspection(inspect_path(write_oddities(tmp_path))))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "96 parameters, 448 bytes, 6 tensors" in text
    assert "f[red].weight" in text
    assert "carried (integer_tensor)" in text
    assert "non_finite_values" in text
