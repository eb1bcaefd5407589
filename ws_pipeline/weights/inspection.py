"""``ws-pipeline inspect``: what is inside a checkpoint, as one JSON-able object. Does I/O.

Roles, dtypes, layers and every tensor from the headers; statistics and oddities from the values.
Not here: reading values (``oddities``), tables for eyes (``cli.inspection_tables``) and any
verdict; a model with oddities is inspected like any other.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ws_pipeline.progress import hides_bars
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.fused import split_fused_rows
from ws_pipeline.weights.oddities import study_layers
from ws_pipeline.weights.plan import Layer, LayerPlan, plan_layers
from ws_pipeline.weights.quantization import QuantizedWeight
from ws_pipeline.weights.role_rules import Role

BAR_DELAY_SECONDS = 1.0
"""A model that is read in less shows no bar."""


def inspect_path(path: str | Path, *, read_values: bool = True) -> dict[str, Any]:
    """Inspect a safetensors file, a sharded folder or a repo folder.

    Args:
        path: The checkpoint.
        read_values: Also read the weights, for statistics and oddities; False reads headers only.

    Returns:
        ``num_params``, ``num_bytes``, ``roles`` {role: params}, ``dtypes`` {dtype: params},
        ``tensors`` [{name, role, shape, dtype, num_params, treatment, why, layer, block}],
        ``treatments`` {treatment: bytes}, ``num_layers``, ``layers`` [{name, role, block, depth,
        rows, cols, transposed, bias_name; with values mean, std, min, max; of a fused projection
        whose config says it num_heads, num_key_heads, head_size}], ``quantization`` [{method,
        is_packed, num_weights}], ``reads_values``, ``oddities`` [{kind, tensor, detail}].
    """
    checkpoint = Checkpoint.open(path)
    plan = plan_layers(list(checkpoint.tensors.values()), checkpoint.config)
    tensors = _list_tensors(checkpoint, plan)
    roles: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    for tensor in tensors:
        roles[tensor["role"]] += tensor["num_params"]
        dtypes[tensor["dtype"]] += tensor["num_params"]
    statistics: dict[str, dict[str, float]] = {}
    oddities: list[dict[str, str]] = []
    if read_values:
        with tqdm(
            total=plan.data_bytes, desc="inspect", unit="B", unit_scale=True, unit_divisor=1024,
            disable=hides_bars(), delay=BAR_DELAY_SECONDS, leave=False,
        ) as bar:  # fmt: skip
            statistics, oddities = study_layers(checkpoint, plan, bar.update)
    return {
        "num_params": plan.num_params,
        "num_bytes": plan.data_bytes,
        "roles": dict(roles.most_common()),
        "dtypes": dict(dtypes.most_common()),
        "treatments": {str(treatment): count for treatment, count in plan.account().items()},
        "num_layers": len(plan.layers),
        "tensors": tensors,
        "layers": _list_layers(plan, statistics, checkpoint.config),
        "quantization": _count_formats(plan.quantized),
        "reads_values": read_values,
        "oddities": oddities,
    }


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


def _list_layers(
    plan: LayerPlan, statistics: Mapping[str, dict[str, float]], config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return [
        {
            "name": layer.name,
            "bias_name": layer.bias_name,
            "role": str(layer.role),
            "shape": list(layer.shape),
            "dtype": layer.dtype,
            "num_params": layer.num_params,
            "block": layer.block,
            "depth": round(layer.depth, 6),
            "rows": layer.rows,
            "cols": layer.cols,
            "transposed": layer.transposed,
            "treatment": str(layer.treatment),
            "why": layer.why,
        }
        | statistics.get(layer.name, {})
        | _count_heads(layer, config)
        for layer in plan.layers
    ]


def _count_heads(layer: Layer, config: Mapping[str, Any]) -> dict[str, int]:
    rows = split_fused_rows(layer.rows, config) if layer.role is Role.FUSED_QKV else None
    if rows is None:
        return {}
    num_heads, head_size = rows.queries.shape
    return {"num_heads": num_heads, "num_key_heads": len(rows.keys), "head_size": head_size}


def _count_formats(weights: Sequence[QuantizedWeight]) -> list[dict[str, Any]]:
    counts = Counter((weight.method, weight.is_packed) for weight in weights)
    return [
        {"method": method, "is_packed": is_packed, "num_weights": count}
        for (method, is_packed), count in counts.most_common()
    ]
