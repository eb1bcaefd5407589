"""Networks that are one chain of dense layers and convolutions. No I/O.

Known as such: the zoos' own MLP and CNN, by ``model_type`` and class name in the config. A
``nn.Sequential`` looks like a chain by its names, but a function around it may skip or split, so it
counts as one only where the caller says so. After a flattening a channel is a block of as many
columns as it had places.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ws_pipeline.weights.order import order_tensors
from ws_pipeline.weights.symmetry.groups import Shapes, Symmetry
from ws_pipeline.weights.symmetry.wiring import NORM_TENSORS, Wiring, list_unknown

_MLP_LAYER = re.compile(r"layers\.(\d+)\.weight")
_SEQUENTIAL = re.compile(r"((?:.*\.)?\d+)\.weight")


class Link(NamedTuple):
    """One layer of a chain, and the BatchNorm behind it ("" for none)."""

    module: str
    norm: str = ""


def find_mlp(shapes: Shapes, config: Mapping[str, Any]) -> Symmetry | None:
    """Return the groups of the zoos' MLP; None for another model."""
    if config.get("model_type") != "mlp" or config.get("architectures") != ["Mlp"]:
        return None
    numbers = sorted(int(found[1]) for name in shapes if (found := _MLP_LAYER.fullmatch(name)))
    return wire_chain(shapes, [Link(f"layers.{number}") for number in numbers])


def find_cnn(shapes: Shapes, config: Mapping[str, Any]) -> Symmetry | None:
    """Return the groups of the zoos' CNN; None for another model."""
    if config.get("model_type") != "cnn" or config.get("architectures") != ["Cnn"]:
        return None
    convolutions = [
        Link(f"conv{number}", f"bn{number}" if f"bn{number}.running_mean" in shapes else "")
        for number in (1, 2, 3)
    ]
    return wire_chain(shapes, [*convolutions, Link("fc1"), Link("fc2")])


def find_sequential(shapes: Shapes, config: Mapping[str, Any]) -> Symmetry:
    """Return the groups of what the caller knows to be one ``nn.Sequential``."""
    links: list[Link] = []
    for name in order_tensors(list(shapes), config):
        found = _SEQUENTIAL.fullmatch(name)
        if found is None:
            continue
        if f"{found[1]}.running_mean" in shapes and links and not links[-1].norm:
            links[-1] = Link(links[-1].module, found[1])
        elif len(shapes[name]) > 1:
            links.append(Link(found[1]))
    return wire_chain(shapes, links)


def wire_chain(shapes: Shapes, links: Sequence[Link]) -> Symmetry:
    """Group every layer's outputs with its norm and the next layer's inputs.

    All tensors of the model must belong to the chain; else it is not one, and has no groups.
    """
    known = {f"{link.module}.{leaf}" for link in links for leaf in ("weight", "bias")}
    known |= {f"{link.norm}.{leaf}" for link in links if link.norm for leaf in NORM_TENSORS}
    odd = list_unknown(shapes, known)
    odd += [f"{link.module}.weight" for link in links if f"{link.module}.weight" not in shapes]
    if odd or not links:
        return Symmetry(gaps=(f"the tensors are not those of a chain: {(odd or ['none'])[0]}",))
    wiring = Wiring(shapes)
    for link, following in pairwise(links):
        group = link.module
        wiring.open_group(group, shapes[f"{group}.weight"][0])
        wiring.add_output(group, group)
        if link.norm:
            wiring.add_norm(group, link.norm)
        ranks = len(shapes[f"{group}.weight"]), len(shapes[f"{following.module}.weight"])
        if ranks[0] > 2 == ranks[1]:  # flattened in between
            wiring.add_blocks(group, f"{following.module}.weight", 1)
        else:  # a grouped convolution has fewer inputs, and drops the group
            wiring.add_units(group, f"{following.module}.weight", 1)
    return wiring.build()
