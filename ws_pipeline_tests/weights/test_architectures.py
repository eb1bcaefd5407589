"""Real architectures: every byte comes back, next to nothing is unknown, roles are what they are.

The truth about a tensor is the class of the module that holds it, which the code under test never
sees. Models are built from configs at reduced width; names and layouts are the real ones.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from ws_pipeline.tokens.shards import pack_path, unpack_path
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.plan import LayerPlan, plan_layers
from ws_pipeline_tests.weights.architectures import (
    ARCHITECTURES,
    ROLES_OF_KINDS,
    build_architecture,
    name_kinds,
)

MAX_UNKNOWN_SHARE = 0.01

TABLES = {f"encoder.rel_pos_{axis}bias.weight" for axis in ("", "x_", "y_")}
"""LayoutLMv3 multiplies one-hot distances by these linear layers, so they are tables of them."""


@dataclass(frozen=True)
class Saved:
    """One architecture, as its library saves it, and what its modules are."""

    folder: Path
    checkpoint: Checkpoint
    plan: LayerPlan
    kinds: dict[str, str]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp(request.param)
    model = build_architecture(request.param)
    model.save_pretrained(folder)
    checkpoint = Checkpoint.open(folder)
    plan = plan_layers(list(checkpoint.tensors.values()), checkpoint.config)
    return Saved(folder, checkpoint, plan, name_kinds(model))


def test_an_architecture_comes_back_byte_for_byte(saved: Saved, tmp_path: Path) -> None:
    pack_path(saved.folder, tmp_path / "tokens")
    (path,) = unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")
    assert path.read_bytes() == (saved.folder / "model.safetensors").read_bytes()


def test_at_most_a_hundredth_of_an_architecture_is_unknown(saved: Saved) -> None:
    params: Counter[str] = Counter()
    for layer in saved.plan.layers:
        params[str(layer.role)] += layer.num_params
    assert params["unknown"] <= MAX_UNKNOWN_SHARE * saved.plan.num_params


def test_roles_agree_with_the_modules_that_hold_the_tensors(saved: Saved) -> None:
    wrong = []
    tokenised = {layer.name for layer in saved.plan.tokenised}
    for name, kind in saved.kinds.items():
        if name not in saved.checkpoint.tensors:  # saved under another name, or tied
            continue
        found = saved.plan.roles[name]
        if str(found.role) not in ROLES_OF_KINDS[kind] and name not in TABLES:
            wrong.append((name, kind, str(found.role)))
        is_matrix = kind in {"Linear.weight", "Conv1D.weight"} and name in tokenised
        if is_matrix and found.transposed != (kind == "Conv1D.weight"):
            wrong.append((name, kind, "the other way round"))
        if kind.endswith(".bias") and not found.weight_name:
            wrong.append((name, kind, "without its weight"))
    assert wrong == []
