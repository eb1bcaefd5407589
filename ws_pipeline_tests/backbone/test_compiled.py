"""Compiled training against eager training, through torch's own compiler."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from ws_pipeline_tests.backbone import compiled_checks

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
TOLERANCE = {"fp32": 1e-4, "bf16": 0.03}
"""Relative, over six steps: fused kernels round in another order; bf16 has 8 bits."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(COMPILER is None, reason="inductor needs a C++ compiler, and there is none")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_training_is_eager_training(precision: str):
    if precision == "bf16" and not torch.cpu.get_capabilities().get("avx512_bf16"):
        pytest.skip("this CPU has no bf16 instructions")
    done = subprocess.run(
        [sys.executable, compiled_checks.__file__, precision],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=800,
    )
    found = json.loads(done.stdout)
    eager, compiled = found["False"], found["True"]
    for name, values in eager.items():
        assert compiled[name] == pytest.approx(values, rel=TOLERANCE[precision]), name
    assert found["num_graphs"] > 0
