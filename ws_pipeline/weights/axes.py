"""Which axis of a weight is its output, and the (output, input) matrix that follows. No I/O.

torch's layers store the output first, GPT-2's Conv1D and TensorFlow's kernels last, transposed
convolutions second. The size of a partner bias settles it where the axes differ. A square matrix is
left to its nearest relatives: matrices whose bias settles it, first of the same place in other
blocks, then of the same module, and so on up. Of stacked experts without a bias, the projections up
and down settle it together. Not here: roles themselves (``roles``).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import prod

from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.role_rules import OUTPUT_FIRST_PATTERN, OUTPUT_LAST_PATTERN, Role

CONVOLUTIONS = frozenset({Role.CONV1D, Role.CONV2D, Role.CONV3D, Role.CONV_TRANSPOSE})
MATRICES = frozenset(
    {
        Role.LINEAR,
        Role.CONV1D_TRANSPOSED,
        Role.FUSED_QKV,
        Role.RECURRENT_INPUT,
        Role.RECURRENT_HIDDEN,
        Role.EXPERTS,
        Role.LORA_A,
        Role.LORA_B,
    }
)
_STACKS = frozenset({Role.LINEAR, Role.RECURRENT_INPUT, Role.EXPERTS})
"""Matrices that come several in one tensor: (part, output, input)."""
_ONE_ROW = frozenset({Role.CLASS_TOKEN, Role.MASK_TOKEN, Role.POSITION_TABLE})

_OUTPUT_LAST = re.compile(OUTPUT_LAST_PATTERN)
_OUTPUT_FIRST = re.compile(OUTPUT_FIRST_PATTERN)
_DIGITS = re.compile(r"\d+")
_UP_AND_DOWN = (("gate_up_proj", "down_proj"), ("up_proj", "down_proj"), ("gate_proj", "down_proj"))


def matrix_shape(role: Role, shape: Sequence[int], *, transposed: bool) -> tuple[int, int]:
    """Return (rows, cols) of the (output, input) matrix of a weight, without its bias.

    A stack (part, output, input) gives part * output rows; stored (part, input, output), the rows
    are the outputs and every part's inputs lie side by side.
    """
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return (1, shape[0]) if role in _ONE_ROW else (shape[0], 1)
    is_stack = role in _STACKS and len(shape) > 2 and not transposed
    if not is_stack and (role in CONVOLUTIONS or role in MATRICES):
        rows = shape[output_axis(role, len(shape), transposed=transposed)]
        return rows, prod(shape) // rows if rows else 0
    if transposed:
        return shape[-1], prod(shape[:-1])
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


def decide_output_axes(
    by_name: Mapping[str, TensorInfo], partners: Mapping[str, str], roles: Mapping[str, Role]
) -> dict[str, int]:
    """Return the output axis of every matrix and convolution."""
    axes: dict[str, int] = {}
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    doubtful: list[str] = []
    for name, tensor in by_name.items():
        role, rank = roles[name], len(tensor.shape)
        num_outputs = by_name[partners[name]].num_params if partners[name] else 0
        if role in CONVOLUTIONS:
            axes[name] = _convolution_axis(tensor, num_outputs, role)
        elif role is Role.EXPERTS and rank == 3:
            axes[name] = _expert_axis(tensor, by_name)
        elif rank == 2 and (role in MATRICES or role is Role.UNKNOWN):
            axis = _matrix_axis(tensor, num_outputs, role)
            if axis is None:
                doubtful.append(name)
                continue
            axes[name] = axis
            for scope in _scopes(name) if num_outputs else ():
                votes[scope][axis] += 1
    axes.update((name, _ask_relatives(name, votes)) for name in doubtful)
    return axes


def _matrix_axis(tensor: TensorInfo, num_outputs: int, role: Role) -> int | None:
    """Return the output axis of a plain matrix; None where its relatives have to say."""
    rows, cols = tensor.shape
    if num_outputs and rows != cols:
        return 0 if num_outputs == rows else 1
    if num_outputs or role is Role.CONV1D_TRANSPOSED:
        return None
    return 1 if _OUTPUT_LAST.search(tensor.name.lower()) else 0


def _ask_relatives(name: str, votes: Mapping[str, Counter[int]]) -> int:
    scopes = _scopes(name)
    if _OUTPUT_FIRST.search(name.lower()):
        # A torch linear may stand beside a Conv1D: only its own module counts.
        scopes = scopes[:3]
    for scope in scopes:
        if scope in votes:
            straight, last = votes[scope][0], votes[scope][1]
            return 1 if last > straight else 0
    return 1 if _OUTPUT_LAST.search(name.lower()) else 0


def _scopes(name: str) -> list[str]:
    """Return the name with its numbers blanked, then ever shorter prefixes of it, down to ""."""
    parts = _DIGITS.sub("#", name).split(".")
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _convolution_axis(tensor: TensorInfo, num_outputs: int, role: Role) -> int:
    rank = len(tensor.shape)
    is_last = _OUTPUT_LAST.search(tensor.name.lower()) is not None
    if not num_outputs:
        # A depthwise kernel (channels, 1, ...) has its channels first either way round.
        is_second = role is Role.CONV_TRANSPOSE and tensor.shape[1] != 1
        return 1 if is_second else (rank - 1 if is_last else 0)
    preferred = [1, 0] if role is Role.CONV_TRANSPOSE else [0, 1]
    order = [rank - 1, *preferred] if is_last else [*preferred, rank - 1]
    return next(axis for axis in order if tensor.shape[axis] == num_outputs)


def _expert_axis(tensor: TensorInfo, by_name: Mapping[str, TensorInfo]) -> int:
    """Return 2 for stacked experts that are stored (expert, input, output), else 0."""
    bias = by_name.get(f"{tensor.name}_bias")
    if bias is not None and len(bias.shape) == 2 and tensor.shape[1] != tensor.shape[2]:
        return 2 if bias.shape[1] == tensor.shape[2] else 0
    for up, down in _expert_pairs(tensor, by_name):
        # Whatever an expert widens to is what its way down takes in, once or (gate and up) twice.
        widths = {2 * down[2], down[2]}
        if up[2] == down[1] and up[1] in widths:
            return 0
        if up[1] == down[2] and up[2] in {2 * down[1], down[1]}:
            return 2
    return 0


def _expert_pairs(
    tensor: TensorInfo, by_name: Mapping[str, TensorInfo]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the shapes (up, down) of the pair of projections that a stack belongs to."""
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for up_name, down_name in _UP_AND_DOWN:
        for mine, other in ((up_name, down_name), (down_name, up_name)):
            sibling = re.sub(rf"(?<![a-z_]){mine}(?=(\.weight)?$)", other, tensor.name)
            info = by_name.get(sibling)
            if sibling == tensor.name or info is None or len(info.shape) != 3:
                continue
            is_up = mine == up_name
            pairs.append((tensor.shape, info.shape) if is_up else (info.shape, tensor.shape))
    return pairs
