"""ResNets: groups within blocks, and one per stretch of the residual stream. No I/O.

Two ways to name the same network: torchvision's (``layer1.0.conv1``, ``downsample.0``; also
``shortcut.0``) and transformers' (``encoder.stages.0.layers.0.layer.0.convolution``). Blocks
without a projection pass channels through, so all outputs up to the next projection share a
permutation. Where the channels change without a projection (He's option A pads with zeros) the
stretches on both sides stay as they are. Known are only networks in which every tensor has its
place.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ws_pipeline.weights.symmetry.groups import Shapes, Symmetry
from ws_pipeline.weights.symmetry.wiring import NORM_TENSORS, Wiring, list_unknown

Unit = tuple[str, str]
"""A convolution and the BatchNorm behind it."""

_TORCH_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.")
_HUB_BLOCK = re.compile(r"(.*)encoder\.stages\.(\d+)\.layers\.(\d+)\.")
_HEADS = ("fc", "linear", "classifier", "classifier.1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One residual block.

    Attributes:
        prefix: Of its tensors' names.
        units: Its convolutions in order.
        projection: Of the shortcut, if it has weights.
    """

    prefix: str
    units: tuple[Unit, ...]
    projection: Unit | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualNetwork:
    """A whole ResNet.

    Attributes:
        head: The dense layer at the end; "" for none.
    """

    stem: Unit
    blocks: tuple[Block, ...]
    head: str


def find_residual_network(shapes: Shapes, config: Mapping[str, Any]) -> Symmetry | None:
    """Return the groups of a ResNet; None for another model."""
    network = _read_hub_names(shapes) if config.get("model_type") == "resnet" else None
    network = network or _read_torch_names(shapes)
    if network is None:
        return None
    known = set(_list_tensors(network))
    if unknown := list_unknown(shapes, known):
        return Symmetry(gaps=(f"a ResNet has no tensor {unknown[0]}",))
    units = [network.stem, *(unit for block in network.blocks for unit in block.units)]
    units += [block.projection for block in network.blocks if block.projection]
    for convolution, norm in units:
        rows = shapes.get(f"{convolution}.weight", ())[:1]
        if len(shapes.get(f"{convolution}.weight", ())) != 4:
            return Symmetry(gaps=(f"{convolution} should be a convolution of two dimensions",))
        # Before its convolution a norm has the inputs' size, and one over groups of channels has no
        # running statistics: networks of other kinds.
        if shapes.get(f"{norm}.running_mean") != rows:
            return Symmetry(gaps=(f"{norm} does not normalise the outputs of {convolution}",))
    return _wire(shapes, network)


def _list_tensors(network: ResidualNetwork) -> list[str]:
    units = [network.stem, *(unit for block in network.blocks for unit in block.units)]
    units += [block.projection for block in network.blocks if block.projection]
    names = [f"{convolution}.weight" for convolution, _ in units]
    names += [f"{norm}.{leaf}" for _, norm in units for leaf in NORM_TENSORS]
    return [*names, f"{network.head}.weight", f"{network.head}.bias"]


def _wire(shapes: Shapes, network: ResidualNetwork) -> Symmetry:
    wiring = Wiring(shapes)
    stream, stream_size = "stream.0", shapes[f"{network.stem[0]}.weight"][0]
    wiring.open_group(stream, stream_size)
    _add_outputs(wiring, stream, network.stem)
    for number, block in enumerate(network.blocks, start=1):
        source = stream
        first, last = block.units[0], block.units[-1]
        out_size = shapes[f"{last[0]}.weight"][0]
        if block.projection is not None or out_size != stream_size:
            stream = f"stream.{number}"
            wiring.open_group(stream, out_size)
        if block.projection is not None:
            wiring.add_units(source, f"{block.projection[0]}.weight", 1)
            _add_outputs(wiring, stream, block.projection)
        elif stream != source:
            reason = f"{block.prefix} changes the channels without a projection"
            wiring.drop_group(source, f"{source}: {reason}")
            wiring.drop_group(stream, f"{stream}: {reason}")
        wiring.add_units(source, f"{first[0]}.weight", 1)
        _wire_block(wiring, block)
        _add_outputs(wiring, stream, last)
        stream_size = out_size
    if network.head:
        wiring.add_blocks(stream, f"{network.head}.weight", 1)
    else:
        wiring.drop_group(stream, f"{stream}: it is the output of the model")
    return wiring.build()


def _wire_block(wiring: Wiring, block: Block) -> None:
    for unit, following in pairwise(block.units):
        group = unit[0]
        wiring.open_group(group, wiring.shapes[f"{group}.weight"][0])
        _add_outputs(wiring, group, unit)
        wiring.add_units(group, f"{following[0]}.weight", 1)


def _add_outputs(wiring: Wiring, group: str, unit: Unit) -> None:
    wiring.add_output(group, unit[0])
    wiring.add_norm(group, unit[1])


def _read_torch_names(shapes: Shapes) -> ResidualNetwork | None:
    prefixes = _list_prefixes(shapes, _TORCH_BLOCK)
    if not prefixes or "conv1.weight" not in shapes or "bn1.weight" not in shapes:
        return None
    blocks = []
    for prefix in prefixes:
        numbers = [n for n in (1, 2, 3) if f"{prefix}conv{n}.weight" in shapes]
        shortcuts = [s for s in ("downsample", "shortcut") if f"{prefix}{s}.0.weight" in shapes]
        blocks.append(
            Block(
                prefix=prefix,
                units=tuple((f"{prefix}conv{n}", f"{prefix}bn{n}") for n in numbers),
                projection=_project(f"{prefix}{shortcuts[0]}.", "0", "1") if shortcuts else None,
            )
        )
    return _check(ResidualNetwork(stem=("conv1", "bn1"), blocks=tuple(blocks), head=_head(shapes)))


def _read_hub_names(shapes: Shapes) -> ResidualNetwork | None:
    prefixes = _list_prefixes(shapes, _HUB_BLOCK)
    if not prefixes:
        return None
    blocks = []
    for prefix in prefixes:
        modules = [f"{prefix}layer.{number}." for number in range(3)]
        present = [module for module in modules if f"{module}convolution.weight" in shapes]
        shortcut = f"{prefix}shortcut."
        has_shortcut = f"{shortcut}convolution.weight" in shapes
        blocks.append(
            Block(
                prefix=prefix,
                units=tuple(_project(m, "convolution", "normalization") for m in present),
                projection=_project(shortcut, "convolution", "normalization")
                if has_shortcut
                else None,
            )
        )
    root = prefixes[0].partition("encoder.stages.")[0]
    stem = _project(f"{root}embedder.embedder.", "convolution", "normalization")
    return _check(ResidualNetwork(stem=stem, blocks=tuple(blocks), head=_head(shapes)))


def _project(prefix: str, convolution: str, norm: str) -> Unit:
    return prefix + convolution, prefix + norm


def _head(shapes: Shapes) -> str:
    return next((head for head in _HEADS if f"{head}.weight" in shapes), "")


def _check(network: ResidualNetwork) -> ResidualNetwork | None:
    return network if all(len(block.units) > 1 for block in network.blocks) else None


def _list_prefixes(shapes: Shapes, pattern: re.Pattern[str]) -> Sequence[str]:
    """Return the blocks' prefixes in the order of their numbers."""
    found = [match for name in shapes if (match := pattern.match(name))]
    prefixes = {match[0]: tuple(int(n) for n in match.groups()[-2:]) for match in found}
    return sorted(prefixes, key=lambda prefix: prefixes[prefix])
