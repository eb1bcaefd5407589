"""The role, partner bias and output axis of every tensor, from names and shapes alone. No I/O.

The model is never built. Not here: the habits themselves (``role_rules``, data) and what is then
done with a tensor (``plan``). Where names and shapes leave two readings (a square matrix may be
stored (output, input) or, as GPT-2's Conv1D does, (input, output)) its nearest relatives decide:
matrices whose bias settles it, first of the same place in other blocks, then of the same module,
and so on up.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ws_pipeline.weights.dtypes import is_weight_dtype
from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.role_rules import (
    BIAS_PARTNERS,
    OUTPUT_LAST_PATTERN,
    ROLE_RULES,
    Role,
    RoleRule,
)

_RULES = tuple((rule, re.compile(rule.pattern)) for rule in ROLE_RULES)
_PARTNERS = tuple((re.compile(pattern), template) for pattern, template in BIAS_PARTNERS)
_OUTPUT_LAST = re.compile(OUTPUT_LAST_PATTERN)
_DIGITS = re.compile(r"\d+")

CONVOLUTIONS = frozenset({Role.CONV1D, Role.CONV2D, Role.CONV3D, Role.CONV_TRANSPOSE})
MATRICES = frozenset(
    {
        Role.LINEAR,
        Role.CONV1D_TRANSPOSED,
        Role.FUSED_QKV,
        Role.RECURRENT_INPUT,
        Role.RECURRENT_HIDDEN,
    }
)
WITH_BIAS = CONVOLUTIONS | MATRICES | {Role.NORM_SCALE, Role.UNKNOWN}
"""Roles whose layer takes in a partner bias."""


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
    roles = {
        tensor.name: match_rule(tensor.name, len(tensor.shape), partners[tensor.name] != "")
        for tensor in tensors
    }
    axes = _decide_output_axes(by_name, partners, roles)
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


def match_rule(name: str, rank: int, has_bias: bool) -> Role:
    """Return the role of the first rule that matches a tensor's name, rank and partner."""
    normalised = name.lower().replace("::", ".").replace("/", ".").replace(":", ".")
    for rule, pattern in _RULES:
        if _applies(rule, rank, has_bias) and pattern.search(normalised):
            return rule.role
    return Role.UNKNOWN


def matrix_shape(role: Role, shape: Sequence[int], *, transposed: bool) -> tuple[int, int]:
    """Return (rows, cols) of the (output, input) matrix of a weight, without its bias."""
    if not shape:
        return 1, 1
    if role in CONVOLUTIONS or role in MATRICES:
        rows = shape[output_axis(role, len(shape), transposed=transposed)]
        return rows, prod(shape) // rows if rows else 0
    if len(shape) == 1:
        is_row = role in {Role.CLASS_TOKEN, Role.MASK_TOKEN, Role.POSITION_TABLE}
        return (1, shape[0]) if is_row else (shape[0], 1)
    if transposed:
        rows = shape[-1]
        return rows, prod(shape[:-1])
    # Tables, tokens and everything unknown: entries along the last axis make a row.
    return prod(shape[:-1]), shape[-1]


def output_axis(role: Role, rank: int, *, transposed: bool) -> int:
    """Return the axis of a weight's outputs.

    The first in torch's layout; the second in torch's transposed convolutions; the last in GPT-2's
    Conv1D and wherever TensorFlow's habit (kernel: ..., input, output) was kept.
    """
    if not transposed:
        return 0
    return 1 if role is Role.CONV_TRANSPOSE else rank - 1


def _applies(rule: RoleRule, rank: int, has_bias: bool) -> bool:
    if rule.ranks and rank not in rule.ranks:
        return False
    return rule.with_bias is None or rule.with_bias is has_bias


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


def _decide_output_axes(
    by_name: Mapping[str, TensorInfo], partners: Mapping[str, str], roles: Mapping[str, Role]
) -> dict[str, int]:
    """Return the output axis of every matrix and convolution."""
    axes: dict[str, int] = {}
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    doubtful: list[str] = []
    for name, tensor in by_name.items():
        if roles[name] in MATRICES | {Role.UNKNOWN} and len(tensor.shape) == 2:
            num_outputs = by_name[partners[name]].num_params if partners[name] else 0
            rows, cols = tensor.shape
            if num_outputs and rows != cols:
                axes[name] = 0 if num_outputs == rows else 1
                for scope in _scopes(name):
                    votes[scope][axes[name]] += 1
            elif num_outputs:
                doubtful.append(name)
            else:
                axes[name] = 1 if _OUTPUT_LAST.search(name.lower()) else 0
        elif roles[name] in CONVOLUTIONS:
            axes[name] = _convolution_axis(tensor, partners[name], by_name, roles[name])
    for name in doubtful:
        axes[name] = _ask_relatives(name, votes)
    return axes


def _ask_relatives(name: str, votes: Mapping[str, Counter[int]]) -> int:
    for scope in _scopes(name):
        if scope in votes:
            straight, last = votes[scope][0], votes[scope][1]
            return 1 if last > straight else 0
    return 1 if _OUTPUT_LAST.search(name.lower()) else 0


def _scopes(name: str) -> list[str]:
    """Return the name with its numbers blanked, then ever shorter prefixes of it, down to ""."""
    parts = _DIGITS.sub("#", name).split(".")
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _convolution_axis(
    tensor: TensorInfo, partner: str, by_name: Mapping[str, TensorInfo], role: Role
) -> int:
    rank = len(tensor.shape)
    num_outputs = by_name[partner].num_params if partner else 0
    is_last = _OUTPUT_LAST.search(tensor.name.lower()) is not None
    if not num_outputs:
        return 1 if role is Role.CONV_TRANSPOSE else (rank - 1 if is_last else 0)
    preferred = [1, 0] if role is Role.CONV_TRANSPOSE else [0, 1]
    order = [rank - 1, *preferred] if is_last else [*preferred, rank - 1]
    return next(axis for axis in order if tensor.shape[axis] == num_outputs)


def _settle_role(role: Role, tensor: TensorInfo, axis: int) -> Role:
    """Correct what a name alone could not know: which way round the weight is stored."""
    if role is Role.CONV1D_TRANSPOSED and axis == 0:
        return Role.LINEAR
    is_second = axis == 1 and len(tensor.shape) > 2
    if role in CONVOLUTIONS and is_second:
        return Role.CONV_TRANSPOSE
    return role
