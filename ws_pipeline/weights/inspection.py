"""``ws-pipeline inspect``: what is inside a checkpoint, for machines and for eyes. Does I/O.

Roles, dtypes and every tensor from the headers; oddities (non-finite values, constant layers, dead
outputs, duplicated layers) from the values, one layer at a time. Not here: any verdict; a model
with oddities is inspected like any other.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import widen
from ws_pipeline.weights.matrix import join_matrix
from ws_pipeline.weights.plan import Layer, LayerPlan, Treatment, plan_layers

MAX_RENDERED_TENSORS = 200
"""Rows of the table for eyes; the JSON always has all."""

# A layer this small is constant or repeated by chance (a fresh bias, a scalar).
_MIN_ODD_PARAMS = 8


def inspect_path(path: str | Path, *, read_values: bool = True) -> dict[str, Any]:
    """Inspect a safetensors file, a sharded folder or a repo folder.

    Args:
        path: The checkpoint.
        read_values: Also look for oddities, which reads the weights; False reads headers only.

    Returns:
        ``num_params``, ``num_bytes``, ``roles`` {role: params}, ``dtypes`` {dtype: params},
        ``tensors`` [{name, role, shape, dtype, num_params, treatment, why, layer, block}],
        ``treatments`` {treatment: bytes}, ``num_layers``, ``oddities`` [{kind, tensor, detail}].
    """
    checkpoint = Checkpoint.open(path)
    plan = plan_layers(list(checkpoint.tensors.values()), checkpoint.config)
    tensors = _list_tensors(checkpoint, plan)
    roles: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    for tensor in tensors:
        roles[tensor["role"]] += tensor["num_params"]
        dtypes[tensor["dtype"]] += tensor["num_params"]
    return {
        "num_params": plan.num_params,
        "num_bytes": plan.data_bytes,
        "roles": dict(roles.most_common()),
        "dtypes": dict(dtypes.most_common()),
        "treatments": {str(treatment): count for treatment, count in plan.account().items()},
        "num_layers": len(plan.layers),
        "tensors": tensors,
        "oddities": find_oddities(checkpoint, plan) if read_values else [],
    }


def find_oddities(checkpoint: Checkpoint, plan: LayerPlan) -> list[dict[str, str]]:
    """Look at the values of every layer that would be tokenised for what training rarely makes."""
    oddities: list[dict[str, str]] = []
    seen: dict[tuple[tuple[int, ...], str, bytes], str] = {}
    for layer in plan.layers:
        if layer.treatment is not Treatment.TOKENISED:
            continue
        weight = checkpoint.read(layer.name)
        bias = checkpoint.read_flat(layer.bias_name) if layer.bias_name else None
        matrix = widen(join_matrix(layer, weight, bias))
        oddities += _judge_matrix(layer, matrix)
        if layer.num_params < _MIN_ODD_PARAMS or matrix.min() == matrix.max():
            continue
        digest = hashlib.blake2b(weight.reshape(-1).view(np.uint8).data, digest_size=16).digest()
        original = seen.setdefault((layer.shape, layer.dtype, digest), layer.name)
        if original != layer.name:
            oddities.append(
                {
                    "kind": "duplicated_layer",
                    "tensor": layer.name,
                    "detail": f"the same values as {original}",
                }
            )
    return oddities


def render_inspection(inspection: Mapping[str, Any]) -> RenderableType:
    """Return an inspection as tables for a terminal."""
    total = max(1, inspection["num_params"])
    title = (
        f"{inspection['num_params']:,} parameters, {inspection['num_bytes']:,} bytes, "
        f"{len(inspection['tensors']):,} tensors in {inspection['num_layers']:,} layers"
    )
    roles = _make_table("Roles", ("role", "parameters", "share"), numeric=(1, 2))
    for role, count in inspection["roles"].items():
        roles.add_row(role, f"{count:,}", f"{count / total:.1%}")
    tensors = _make_table(
        "Tensors", ("tensor", "role", "shape", "dtype", "parameters", "treatment"), numeric=(4,)
    )
    for tensor in inspection["tensors"][:MAX_RENDERED_TENSORS]:
        treatment = tensor["treatment"] + (f" ({tensor['why']})" if tensor["why"] else "")
        shape = " x ".join(str(dim) for dim in tensor["shape"]) or "scalar"
        tensors.add_row(
            Text(tensor["name"]),
            tensor["role"],
            shape,
            tensor["dtype"],
            f"{tensor['num_params']:,}",
            treatment,
        )
    parts: list[RenderableType] = [Text(title, style="bold"), roles, tensors]
    hidden = len(inspection["tensors"]) - MAX_RENDERED_TENSORS
    if hidden > 0:
        parts.append(Text(f"... and {hidden:,} more tensors; --json lists all"))
    if inspection["oddities"]:
        oddities = _make_table("Oddities", ("what", "tensor", "detail"))
        for oddity in inspection["oddities"]:
            oddities.add_row(oddity["kind"], Text(oddity["tensor"]), oddity["detail"])
        parts.append(oddities)
    return Group(*parts)


def _list_tensors(checkpoint: Checkpoint, plan: LayerPlan) -> list[dict[str, Any]]:
    """List every tensor in plan order, a bias after its weight."""
    tensors: list[dict[str, Any]] = []
    for layer in plan.layers:
        for name in (layer.name, layer.bias_name):
            if not name:
                continue
            tensor = checkpoint.tensors[name]
            tensors.append(
                {
                    "name": name,
                    "role": str(plan.roles[name].role),
                    "shape": list(tensor.shape),
                    "dtype": tensor.dtype,
                    "num_params": tensor.num_params,
                    "treatment": str(layer.treatment),
                    "why": layer.why,
                    "layer": layer.index,
                    "block": layer.block,
                }
            )
    return tensors


def _judge_matrix(layer: Layer, matrix: npt.NDArray[Any]) -> list[dict[str, str]]:
    num_bad = matrix.size - int(np.count_nonzero(np.isfinite(matrix)))
    if num_bad:
        return [_oddity("non_finite_values", layer, f"{num_bad:,} of {matrix.size:,} values")]
    if layer.num_params < _MIN_ODD_PARAMS:
        return []
    weights = matrix[:, : layer.cols]
    if weights.min() == weights.max():
        return [_oddity("constant_layer", layer, f"every weight is {float(weights.flat[0]):g}")]
    num_dead = int(np.count_nonzero(~weights.any(axis=1))) if layer.cols > 1 else 0
    if num_dead:
        return [_oddity("dead_rows", layer, f"{num_dead:,} of {layer.rows:,} outputs are all zero")]
    return []


def _oddity(kind: str, layer: Layer, detail: str) -> dict[str, str]:
    return {"kind": kind, "tensor": layer.name, "detail": detail}


def _make_table(title: str, columns: tuple[str, ...], *, numeric: tuple[int, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numeric else "left")
    return table
