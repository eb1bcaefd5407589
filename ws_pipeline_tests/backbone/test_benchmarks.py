"""The benchmark scripts run, at a size where their numbers mean nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=800,
    ).stdout


def test_the_gpu_script_measures_and_compares_on_a_cpu_too(tmp_path: Path):
    run("gpu.py", "--device", "cpu", "--preset", "tiny", "--steps", "2", "--out", str(tmp_path))
    found = json.loads((tmp_path / "results.json").read_text())
    assert 0 < found["speed"]["model_flops_utilization"] < 1
    assert found["speed"]["num_params"] == pytest.approx(419_074)
    assert found["compiled"]["equal"]
    assert found["sharded"]["equal"]
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_the_training_script_puts_ours_beside_torchs_own_encoder():
    text = run("training.py", "--preset", "tiny", "--steps", "1", "--batch", "2", "--window", "16")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["| torch fp32", "| ours fp32", "| ours best"]
    assert "ours / torch fp32:" in text
    assert "roofline: " in text
