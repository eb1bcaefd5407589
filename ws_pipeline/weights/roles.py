"""The role, partner bias and output axis of every tensor, from names and shapes alone. No I/O.

The model is never built. Not here: the habits themselves (``role_rules``, data), which way round a
weight is stored (``axes``), and what is then done with a tensor (``plan``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ws_pipeline.weights.axes import (
    CONVOLUTIONS,
    MATRICES,
    decide_output_axes,
    matrix_shape,
    output_axis,
)
from ws_pipeline.weights.dtypes import INTEGER_DTYPES, is_weight_dtype
from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.quantization import find_quantized, packed_names
from ws_pipeline.weights.role_rules import BIAS_PARTNERS, ROLE_RULES, Role, RoleRule

__all__ = [
    "CONVOLUTIONS",
    "MATRICES",
    "TensorRole",
    "assign_roles",
    "match_rule",
    "matrix_shape",
    "output_axis",
]

_RULES = tuple((rule, re.compile(rule.pattern)) for rule in ROLE_RULES)
_PARTNERS = tuple((re.compile(pattern), template) for pattern, template in BIAS_PARTNERS)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")

WITH_BIAS = CONVOLUTIONS | MATRICES | {Role.NORM_SCALE, Role.UNKNOWN}
"""Roles whose layer takes in a partner bias."""

_WEIGHT_INTEGERS = frozenset({"I8", "U8"})
"""Integers that hold quantised weights; wider ones are indices, counters and packed words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRole:
    """What one tensor is.

    Attributes:
        bias_name: The bias that becomes the last column of this weight's matrix; empty for none.
        weight_name: For such a bias, the weight it belongs to; empty otherwise.
        transposed: Whether another axis than the first is the output.
    """

    role: Role
    bias_name: str = ""
    weight_name: str = ""
    transposed: bool = False


def assign_roles(tensors: Sequence[TensorInfo]) -> dict[str, TensorRole]:
    """Give every tensor its role; tensors that no rule knows get ``Role.UNKNOWN``."""
    by_name = {tensor.name: tensor for tensor in tensors}
    partners = {tensor.name: _find_partner(tensor, by_name) for tensor in tensors}
    roles = _match_all(tensors, partners)
    axes = decide_output_axes(by_name, partners, roles)
    assigned: dict[str, TensorRole] = {}
    claims: dict[str, str] = {}
    for name, tensor in by_name.items():
        transposed = axes.get(name, 0) != 0
        role = _settle_role(roles[name], tensor, axes.get(name, 0))
        bias = partners[name] if role in WITH_BIAS else ""
        if bias and _fits(tensor, by_name[bias], role, transposed) and bias not in claims:
            claims[bias] = name
        else:
            bias = ""
        assigned[name] = TensorRole(role=role, bias_name=bias, transposed=transposed)
    for bias, weight in claims.items():
        is_norm = assigned[weight].role is Role.NORM_SCALE
        role = Role.NORM_SHIFT if is_norm else Role.BIAS
        assigned[bias] = TensorRole(role=role, weight_name=weight)
    return assigned


def match_rule(name: str, shape: Sequence[int], has_bias: bool) -> Role:
    """Return the role of the first rule that matches a tensor's name, shape and partner."""
    normalised = name.lower().replace("::", ".").replace("/", ".").replace(":", ".")
    for rule, pattern in _RULES:
        if _applies(rule, shape, has_bias) and pattern.search(normalised):
            return rule.role
    return Role.UNKNOWN


def _match_all(tensors: Sequence[TensorInfo], partners: Mapping[str, str]) -> dict[str, Role]:
    """Match every tensor; those whose names differ in a block's number alone only once."""
    packed = packed_names(find_quantized(tensors))
    known: dict[tuple[str, int, bool, bool], Role] = {}
    roles: dict[str, Role] = {}
    for tensor in tensors:
        has_bias = partners[tensor.name] != ""
        place = _NUMBER.sub("0", tensor.name)
        key = (place, len(tensor.shape), has_bias, _has_even_kernel(tensor.shape))
        if key not in known:
            known[key] = match_rule(place, tensor.shape, has_bias)
        role = Role.QUANTIZATION if tensor.name in packed else known[key]
        if role is Role.UNKNOWN and tensor.dtype in INTEGER_DTYPES - _WEIGHT_INTEGERS:
            role = Role.BUFFER
        roles[tensor.name] = role
    return roles


def _applies(rule: RoleRule, shape: Sequence[int], has_bias: bool) -> bool:
    if rule.ranks and len(shape) not in rule.ranks:
        return False
    if rule.even_kernel and not _has_even_kernel(shape):
        return False
    return rule.with_bias is None or rule.with_bias is has_bias


def _has_even_kernel(shape: Sequence[int]) -> bool:
    return len(shape) > 2 and all(dim % 2 == 0 for dim in shape[2:])


def _find_partner(tensor: TensorInfo, by_name: Mapping[str, TensorInfo]) -> str:
    """Return the bias that belongs to a weight, by name, size and dtype; "" for none."""
    if not is_weight_dtype(tensor.dtype) or not tensor.num_params:
        return ""
    for pattern, template in _PARTNERS:
        candidate = pattern.sub(template, tensor.name)
        bias = by_name.get(candidate)
        # One dtype per layer: its matrix [W|b] is stored in the source's own.
        if candidate == tensor.name or bias is None or bias.dtype != tensor.dtype:
            continue
        if len(bias.shape) == 1 and bias.num_params in _possible_outputs(tensor.shape):
            return candidate
    return ""


def _possible_outputs(shape: tuple[int, ...]) -> set[int]:
    return {shape[0], shape[1], shape[-1]} if len(shape) > 1 else set(shape)


def _fits(weight: TensorInfo, bias: TensorInfo, role: Role, transposed: bool) -> bool:
    return matrix_shape(role, weight.shape, transposed=transposed)[0] == bias.num_params


def _settle_role(role: Role, tensor: TensorInfo, axis: int) -> Role:
    """Correct what a name alone could not know: which way round the weight is stored."""
    if role is Role.CONV1D_TRANSPOSED and axis == 0:
        return Role.LINEAR
    is_second = axis == 1 and len(tensor.shape) > 2
    if role in CONVOLUTIONS and is_second:
        return Role.CONV_TRANSPOSE
    return role
