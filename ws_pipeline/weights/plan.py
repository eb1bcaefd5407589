"""The layer plan: which tensors make which layer, what is done with each, in which order. No I/O.

A layer is a weight with its partner bias, or a tensor that stands alone. Every byte of a checkpoint
belongs to exactly one layer, and every layer is ``tokenised``, ``carried`` verbatim or ``excluded``
(a tied copy), the latter two with a reason; :meth:`LayerPlan.account` proves the sum. Not here:
values (``statistics``) and the matrix itself (``matrix``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights.dtypes import INTEGER_DTYPES, is_weight_dtype
from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.order import number_blocks, order_tensors
from ws_pipeline.weights.quantization import QuantizedWeight, find_quantized, packed_names
from ws_pipeline.weights.role_rules import Role
from ws_pipeline.weights.roles import TensorRole, assign_roles, matrix_shape


class Treatment(StrEnum):
    """What becomes of a layer."""

    TOKENISED = "tokenised"
    CARRIED = "carried"
    EXCLUDED = "excluded"


BUFFER_ROLES = frozenset({Role.BATCHNORM_MEAN, Role.BATCHNORM_VAR, Role.COUNTER, Role.BUFFER})
"""Floating tensors that training does not fit: carried verbatim."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer of one model.

    Attributes:
        index: Place in the plan.
        name: The weight tensor.
        bias_name: Its partner bias, "" for none.
        why: Reason code when the layer is not tokenised, "" otherwise.
        block: Ordinal of the numbered block (layer of a transformer, stage of a CNN); -1 outside.
        depth: Place in the plan, scaled to [0, 1].
        shape: Of the weight as stored.
        rows: Outputs.
        cols: Inputs, the bias column not counted.
        transposed: Whether the stored output axis is not the first.
        num_params: Of weight and bias.
        num_bytes: Of weight and bias.
        tied_to: For an excluded copy the tensor that holds the same bytes, "" otherwise.
    """

    index: int
    name: str
    bias_name: str
    role: Role
    treatment: Treatment
    why: str
    dtype: str
    block: int
    depth: float
    shape: tuple[int, ...]
    rows: int
    cols: int
    transposed: bool
    num_params: int
    num_bytes: int
    tied_to: str = ""

    @property
    def matrix_cols(self) -> int:
        """Columns of the layer's matrix [W|b]."""
        return self.cols + (self.bias_name != "")


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPlan:
    """All layers of one model, in order.

    Attributes:
        roles: Role of every tensor, biases included.
        data_bytes: Bytes of all tensors.
        quantized: Weights that lie in the file quantised.
    """

    layers: tuple[Layer, ...]
    roles: Mapping[str, TensorRole]
    data_bytes: int
    quantized: tuple[QuantizedWeight, ...] = ()

    @property
    def tokenised(self) -> tuple[Layer, ...]:
        """The layers that become tokens, in order."""
        return tuple(layer for layer in self.layers if layer.treatment is Treatment.TOKENISED)

    @property
    def num_params(self) -> int:
        """Parameters of all layers."""
        return sum(layer.num_params for layer in self.layers)

    def require_unpacked(self) -> None:
        """Refuse a model most of whose bytes are packed integers: what is left is not the model.

        Raises:
            WeightsError: ``quantized``, with the format's name.
        """
        packed = packed_names(self.quantized)
        num_bytes = sum(layer.num_bytes for layer in self.layers if layer.name in packed)
        if 2 * num_bytes > self.data_bytes:
            method = next(weight.method for weight in self.quantized if weight.is_packed)
            raise WeightsError(
                f"The weights must be floating-point numbers, most of them are packed by {method}; "
                "take the model that was quantised.",
                reason=Reason.QUANTIZED,
            )

    def account(self) -> dict[Treatment, int]:
        """Return the bytes per treatment; they sum to the data bytes of the files.

        Raises:
            WeightsError: If a byte is missing or counted twice.
        """
        num_bytes = dict.fromkeys(Treatment, 0)
        for layer in self.layers:
            num_bytes[layer.treatment] += layer.num_bytes
        total = sum(num_bytes.values())
        if total != self.data_bytes:
            raise WeightsError(
                f"The layers must account for all {self.data_bytes} bytes of the model, they "
                f"account for {total}; this is a defect of the layer plan.",
                reason=Reason.INTERNAL,
            )
        return num_bytes


def plan_layers(tensors: Sequence[TensorInfo], config: Mapping[str, Any]) -> LayerPlan:
    """Group tensors into layers, decide their treatment, and put them in order.

    Args:
        tensors: All tensors of one model.
        config: Its ``config.json``; ``tensor_order``, a list of tensor names, fixes the order.
            Where it is absent names are ordered numerically, input side first. Where it says
            ``tie_word_embeddings``, a head of an embedding's shape leaves its bias alone: a file
            that holds both must be able to store the table once.

    Returns:
        A plan that depends on the arguments' content alone, not on the order of ``tensors``.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    ascending = sorted(tensors, key=lambda tensor: tensor.name)
    roles = assign_roles(ascending)
    if config.get("tie_word_embeddings") is True:
        roles = _free_tied_heads(roles, by_name)
    quantized = tuple(find_quantized(ascending))
    packed = packed_names(quantized)
    ordered = [name for name in order_tensors(by_name, config) if not roles[name].weight_name]
    blocks = number_blocks(ordered)
    layers = tuple(
        replace(
            _plan_layer(
                by_name[name],
                roles[name],
                by_name.get(roles[name].bias_name),
                index=index,
                last=len(ordered) - 1,
                is_packed=name in packed,
            ),
            block=blocks[name],
        )
        for index, name in enumerate(ordered)
    )
    plan = LayerPlan(
        layers=layers,
        roles=roles,
        data_bytes=sum(tensor.num_bytes for tensor in tensors),
        quantized=quantized,
    )
    plan.account()
    return plan


def tie_layer(plan: LayerPlan, name: str, tied_to: str) -> LayerPlan:
    """Return the plan with the layer ``name`` excluded as a copy of the tensor ``tied_to``."""
    return _replace_layer(
        plan, name, treatment=Treatment.EXCLUDED, why=str(Reason.TIED), tied_to=tied_to
    )


def carry_layer(plan: LayerPlan, name: str, reason: Reason) -> LayerPlan:
    """Return the plan with the layer ``name`` carried verbatim for ``reason``."""
    return _replace_layer(plan, name, treatment=Treatment.CARRIED, why=str(reason))


def _free_tied_heads(
    roles: Mapping[str, TensorRole], by_name: Mapping[str, TensorInfo]
) -> dict[str, TensorRole]:
    """Part the bias from every linear layer that may repeat an embedding."""
    tables = {
        (by_name[name].shape, by_name[name].dtype)
        for name, role in roles.items()
        if role.role is Role.EMBEDDING
    }
    freed = dict(roles)
    for name, role in roles.items():
        is_table = (by_name[name].shape, by_name[name].dtype) in tables
        if role.role is Role.LINEAR and role.bias_name and is_table and not role.transposed:
            freed[name] = replace(role, bias_name="")
            freed[role.bias_name] = replace(roles[role.bias_name], weight_name="")
    return freed


def _replace_layer(plan: LayerPlan, name: str, **changes: Any) -> LayerPlan:
    layers = (replace(layer, **changes) if layer.name == name else layer for layer in plan.layers)
    return replace(plan, layers=tuple(layers))


def _plan_layer(
    weight: TensorInfo,
    role: TensorRole,
    bias: TensorInfo | None,
    *,
    index: int,
    last: int,
    is_packed: bool,
) -> Layer:
    why = str(Reason.QUANTIZED) if is_packed else _reason_not_tokenised(weight, role.role)
    rows, cols = matrix_shape(role.role, weight.shape, transposed=role.transposed)
    return Layer(
        index=index,
        name=weight.name,
        bias_name=role.bias_name,
        role=role.role,
        treatment=Treatment.CARRIED if why else Treatment.TOKENISED,
        why=why,
        dtype=weight.dtype,
        block=-1,
        depth=index / max(1, last),
        shape=weight.shape,
        rows=rows,
        cols=cols,
        transposed=role.transposed,
        num_params=weight.num_params + (bias.num_params if bias else 0),
        num_bytes=weight.num_bytes + (bias.num_bytes if bias else 0),
    )


def _reason_not_tokenised(tensor: TensorInfo, role: Role) -> str:
    if tensor.dtype in INTEGER_DTYPES:
        return str(Reason.INTEGER_TENSOR)
    if role in BUFFER_ROLES:
        return str(Reason.BUFFER)
    if not is_weight_dtype(tensor.dtype):
        return str(Reason.UNSUPPORTED_DTYPE)
    if not tensor.num_params:
        return str(Reason.EMPTY_TENSOR)
    return ""
