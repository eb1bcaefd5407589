"""Memory: packing takes that of a few blocks, however large the model. In a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

MAX_EXTRA_BYTES = 48 * 2**20
"""Measured: 1.7 MB for these 192 MB; reading a layer at a time took 340."""

MAX_LOOPS_BYTES = 208 * 2**20
"""What numba and its compiler take, once a process; measured: 140 MB when it compiles,
128 MB else."""

SCRIPT = """
import json, sys
from pathlib import Path
from ws_pipeline.tokens.shards import pack_path

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field + ":")).split()[1])

narrow, small, large, out = map(Path, sys.argv[1:])

def pack(path):
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = status("VmRSS")
    manifest = pack_path(path, out)
    return [status("VmHWM") - before, manifest["num_values"]]

pack(narrow)  # imports; its layers are sorted
print(json.dumps([*pack(small), *pack(large)]))
"""


def write_sparse_model(path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    """A file whose tensors are holes: zeros that take neither disk nor time to write."""
    header, start = {}, 0
    for name, (rows, cols) in shapes.items():
        end = start + 4 * rows * cols
        header[name] = {"dtype": "F32", "shape": [rows, cols], "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)


def test_a_model_of_any_size_is_packed_in_the_memory_of_a_few_blocks(tmp_path: Path) -> None:
    shapes = {"fc.weight": (6000, 4000), "h.0.mlp.c_fc.weight": (1000, 4000), "x": (5000, 4000)}
    write_sparse_model(tmp_path / "large.safetensors", shapes)
    write_sparse_model(tmp_path / "small.safetensors", {"fc.weight": (200, 100)})
    write_sparse_model(tmp_path / "narrow.safetensors", {"fc.weight": (20, 10)})
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("narrow", "small", "large")]
    # An empty cache: the loops are compiled.
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "loops")}
    command = [sys.executable, "-c", SCRIPT, *paths]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], check=True, capture_output=True, text=True, timeout=300,
        env=environment,
    )  # fmt: skip
    loops_bytes, _, extra_bytes, num_values = json.loads(done.stdout)
    assert num_values == sum(rows * cols for rows, cols in shapes.values())
    assert extra_bytes < MAX_EXTRA_BYTES
    assert loops_bytes < MAX_LOOPS_BYTES
