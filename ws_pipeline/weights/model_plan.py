"""The layer plan of a checkpoint, with the copies in it that only values show. Does I/O.

Models of one architecture share a plan, so it is made once. Not here: the rules (``plan``), values
other than those of possible copies (``packing``).
"""

import json
from functools import lru_cache

import numpy as np

from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.plan import LayerPlan, plan_layers, tie_layer
from ws_pipeline.weights.role_rules import Role
from ws_pipeline.weights.values import TensorValues

MAX_PLAN_KEPT = 1000
"""Plans of more tensors than this are not kept for the next model: they would fill memory."""

_TIE_ROLES = frozenset({Role.EMBEDDING, Role.LINEAR})


def plan_model(checkpoint: Checkpoint) -> LayerPlan:
    """Plan one model; of its values only those that may be tied copies are read."""
    config_text = json.dumps(checkpoint.config, sort_keys=True)
    tensors = tuple(checkpoint.tensors.values())
    plan_once = _plan_once if len(tensors) <= MAX_PLAN_KEPT else _plan_once.__wrapped__
    plan = plan_once(tensors, config_text)
    for name, tied_to in find_tied_layers(checkpoint, plan).items():
        plan = tie_layer(plan, name, tied_to)
    return plan


def find_tied_layers(checkpoint: Checkpoint, plan: LayerPlan) -> dict[str, str]:
    """Return {name: tensor with the same bytes} for output heads that repeat an input embedding.

    Only pairs of equal shape and dtype with an embedding in them are compared, so few are read.
    """
    tied: dict[str, str] = {}
    candidates = [
        layer for layer in plan.tokenised if layer.role in _TIE_ROLES and not layer.bias_name
    ]
    kept = [layer for layer in candidates if layer.role is Role.EMBEDDING]
    for layer in candidates:
        for original in kept:
            is_pair = layer.name != original.name and original.name not in tied
            if not is_pair or (layer.shape, layer.dtype) != (original.shape, original.dtype):
                continue
            # Of two embeddings the later one is the copy; a linear always is.
            if layer.role is Role.EMBEDDING and layer.index < original.index:
                continue
            if _equal_bytes(checkpoint, layer.name, original.name):
                tied[layer.name] = original.name
                break
    return tied


@lru_cache(maxsize=64)
def _plan_once(tensors: tuple[TensorInfo, ...], config_text: str) -> LayerPlan:
    """Plan tensors that may come again: the models of a population share their plan."""
    return plan_layers(tensors, json.loads(config_text))


def _equal_bytes(checkpoint: Checkpoint, left: str, right: str) -> bool:
    chunks = zip(
        TensorValues(checkpoint, left).chunks(),
        TensorValues(checkpoint, right).chunks(),
        strict=True,
    )
    return all(np.array_equal(one.view(np.uint8), other.view(np.uint8)) for one, other in chunks)
