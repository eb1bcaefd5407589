"""Transformers: attention heads, dimensions within a head, MLP units, the residual stream. No I/O.

Within a block nothing outside matters, so a block has its groups wherever all of its own tensors
are known. Heads permute as wholes; with fewer keys than queries the query heads of one key head
stay together and permute among themselves. Within a head, value dimensions permute with the
output's columns, query dimensions with key dimensions unless rotated. The residual stream needs
every tensor of the model to be known. Names are data, in ``transformer_rules``.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from ws_pipeline.weights.symmetry.groups import (
    ChildAxis,
    ChildGroup,
    GroupAxis,
    Shapes,
    Symmetry,
)
from ws_pipeline.weights.symmetry.transformer_rules import (
    FAMILIES,
    HEAD_COUNT_KEYS,
    HEAD_SIZE_KEYS,
    KEY_HEAD_COUNT_KEYS,
    AttentionNames,
    FamilyNames,
    MlpNames,
)
from ws_pipeline.weights.symmetry.wiring import Wiring, read_count

STREAM = "stream"
_READS_STREAM = re.compile(r".*(For[A-Z]\w+|LMHeadModel|DoubleHeadsModel)")
"""Classes that give logits. The bare models give the stream itself, whose order then counts."""


class Heads(NamedTuple):
    """How an attention's outputs divide: query heads, key heads, dimensions of each."""

    queries: int
    keys: int
    size: int


def find_transformer(shapes: Shapes, config: Mapping[str, Any]) -> Symmetry | None:
    """Return the groups of a transformer; None where the config names no family that is known."""
    model_type = config.get("model_type")
    family = next((names for names in FAMILIES if model_type in names.model_types), None)
    return None if family is None else _Transformer(family, shapes, config).find()


class _Transformer:
    """One model of a family."""

    def __init__(self, family: FamilyNames, shapes: Shapes, config: Mapping[str, Any]) -> None:
        buffers = re.compile(family.buffers)
        self.shapes = {name: s for name, s in shapes.items() if not buffers.fullmatch(name)}
        self.family = family
        self.config = config
        self.wiring = Wiring(shapes)
        self.block = re.compile(family.block)
        self.output_axis, self.input_axis = (1, 0) if family.transposed else (0, 1)

    def find(self) -> Symmetry:
        blocks: dict[str, set[str]] = defaultdict(set)
        for name in self.shapes:
            if found := self.block.match(name):
                blocks[found[0]].add(name.removeprefix(found[0]))
        if not blocks:
            self.wiring.add_gap(f"no tensor is named like a block of {self.config['model_type']}")
        known = self._known_leaves()
        refused = [prefix for prefix, leaves in blocks.items() if leaves - known]
        for prefix in refused:
            self.wiring.add_gap(f"{prefix}{min(blocks[prefix] - known)} is not known")
        for prefix in [prefix for prefix in blocks if prefix not in refused]:
            self._add_mlps(prefix)
        self._add_attentions(list(blocks), {self._stack(prefix) for prefix in refused})
        if not refused:
            self._add_stream()
        return self.wiring.build()

    def _has(self, prefix: str, module: str) -> bool:
        return f"{prefix}{module}.weight" in self.shapes

    def _stack(self, prefix: str) -> str:
        found = self.block.match(prefix)
        return (found.groupdict().get("stack") or prefix) if found else prefix

    def _known_leaves(self) -> set[str]:
        modules: list[str] = []
        for attention in self.family.attentions:
            modules += [attention.query, attention.key, attention.value, attention.output]
            modules += [attention.fused, attention.bias_table, *attention.norms]
        for mlp in self.family.mlps:
            modules += [*mlp.inputs, mlp.output]
        known = {f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")}
        norms = ("weight", "bias", "gamma", "beta")  # the latter in files of TensorFlow's time
        return known | {f"{norm}.{leaf}" for norm in self.family.passive for leaf in norms}

    def _add_mlps(self, prefix: str) -> None:
        for mlp in self.family.mlps:
            if self._has(prefix, mlp.output) and self._has(prefix, mlp.inputs[0]):
                self._add_mlp(prefix, mlp)

    def _add_mlp(self, prefix: str, mlp: MlpNames) -> None:
        group = f"{prefix}{mlp.inputs[0]}"
        self.wiring.open_group(group, self.shapes[f"{group}.weight"][self.output_axis])
        for module in mlp.inputs:
            if not self._has(prefix, module):
                self.wiring.drop_group(group, f"{prefix}{module} is missing")
                return
            self.wiring.add_output(group, f"{prefix}{module}", axis=self.output_axis)
        self.wiring.add_units(group, f"{prefix}{mlp.output}.weight", self.input_axis)

    def _add_attentions(self, prefixes: list[str], refused: set[str]) -> None:
        for attention in self.family.attentions:
            together: dict[str, list[str]] = defaultdict(list)
            for prefix in prefixes:
                if self._has(prefix, attention.output):
                    key = self._stack(prefix) if attention.bias_table else prefix
                    together[key].append(prefix)
            for key, members in together.items():
                if not refused & {self._stack(prefix) for prefix in members}:
                    self._add_heads(f"{key.rstrip('.')}.{attention.output}", members, attention)

    def _add_heads(self, group: str, prefixes: list[str], attention: AttentionNames) -> None:
        """Add the heads of one attention, or of several that share a table of biases."""
        heads = self._count_heads(prefixes[0], attention)
        if heads is None:
            self.wiring.add_gap(f"{group}: the config does not say how many heads there are")
            return
        axes: list[GroupAxis] = []
        children: list[ChildGroup] = []
        for prefix in prefixes:
            found = self._list_head_axes(prefix, attention, heads)
            if found is None:
                self.wiring.add_gap(f"{prefix[:-1]}: its attention has not the shape of the config")
                return
            children += _divide_heads(prefix, found, heads, len(axes), rotary=attention.rotary)
            axes += [axis for part in found.values() for axis in part]
        tables = [f"{prefix}{attention.bias_table}.weight" for prefix in prefixes]
        tables = [table for table in tables if table in self.shapes]
        if attention.bias_table and len(tables) != 1:
            self.wiring.add_gap(f"{group}: {len(tables)} tables of relative positions, not one")
            return
        axes += [GroupAxis(tensor=table, axis=1) for table in tables if attention.bias_table]
        self.wiring.open_group(group, heads.keys, children=tuple(children))
        for axis in axes:
            self.wiring.add_run(group, axis.tensor, axis.axis, start=axis.start, inner=axis.inner)

    def _count_heads(self, prefix: str, attention: AttentionNames) -> Heads | None:
        queries = read_count(self.config, *HEAD_COUNT_KEYS)
        keys = read_count(self.config, *KEY_HEAD_COUNT_KEYS) or queries
        rows = self.shapes[f"{prefix}{attention.output}.weight"][self.input_axis]
        if not queries or queries % keys or rows % queries:
            return None
        size = rows // queries
        stated = read_count(self.config, *HEAD_SIZE_KEYS)
        return None if stated not in (0, size) else Heads(queries, keys, size)

    def _list_head_axes(
        self, prefix: str, attention: AttentionNames, heads: Heads
    ) -> dict[str, list[GroupAxis]] | None:
        """Return where queries, keys, values and outputs lie; None where shapes say otherwise."""
        group_size = heads.queries // heads.keys * heads.size
        inner = {"query": group_size, "key": heads.size, "value": heads.size}
        starts = dict.fromkeys(inner, 0)
        modules = {"query": attention.query, "key": attention.key, "value": attention.value}
        length = {part: heads.keys * size for part, size in inner.items()}
        if attention.fused:
            modules = dict.fromkeys(inner, attention.fused)
            starts = {"query": 0, "key": length["query"], "value": length["query"] + length["key"]}
            length = dict.fromkeys(inner, sum(length.values()))
        found: dict[str, list[GroupAxis]] = {}
        for part, module in modules.items():
            found[part] = []
            for leaf, axis in (("weight", self.output_axis), ("bias", 0)):
                name = f"{prefix}{module}.{leaf}"
                if name not in self.shapes:
                    if leaf == "weight":
                        return None
                    continue
                if self.shapes[name][axis] != length[part]:
                    return None
                found[part].append(
                    GroupAxis(tensor=name, axis=axis, start=starts[part], inner=inner[part])
                )
        output = f"{prefix}{attention.output}.weight"
        found["output"] = [GroupAxis(tensor=output, axis=self.input_axis, inner=group_size)]
        return found

    def _add_stream(self) -> None:
        """Add the residual stream, if every tensor of the model is known."""
        rules = [(re.compile(pattern), axis) for pattern, axis in self.family.residual]
        stated = self.config.get("architectures")
        architecture = str(stated[0]) if isinstance(stated, list) and stated else ""
        if not _READS_STREAM.fullmatch(architecture):
            self.wiring.add_gap(f"{STREAM}: it is the output of {architecture or 'the model'}")
            return
        rules += [
            (re.compile(pattern), axis)
            for whose, pattern, axis in self.family.heads
            if re.fullmatch(whose, architecture)
        ]
        places: list[tuple[str, int]] = []
        for name in self.shapes:
            axes = [axis for pattern, axis in rules if pattern.fullmatch(name)]
            if not axes or any(axis >= len(self.shapes[name]) for axis in axes):
                self.wiring.add_gap(f"{STREAM}: {name} is not known")
                return
            places += [(name, axis) for axis in axes if axis >= 0]
        if places:
            name, axis = places[0]
            self.wiring.open_group(STREAM, self.shapes[name][axis])
        for name, axis in places:
            self.wiring.add_units(STREAM, name, axis)


def _divide_heads(
    prefix: str,
    axes: Mapping[str, list[GroupAxis]],
    heads: Heads,
    first: int,
    *,
    rotary: bool,
) -> list[ChildGroup]:
    """Return what permutes within a key head: query heads, value and query-key dimensions.

    ``axes`` are those of one attention, part by part; the first of them has the index ``first``
    among the group's axes.
    """
    places: dict[str, list[int]] = {}
    for part, found in axes.items():
        places[part] = list(range(first, first + len(found)))
        first += len(found)
    ratio, size = heads.queries // heads.keys, heads.size
    whole = [ChildAxis(of=of) for of in places["value"]]
    values = [*whole, *(ChildAxis(of=of, outer=ratio) for of in places["output"])]
    children = [ChildGroup(name=f"{prefix}values", size=size, axes=tuple(values))]
    if not rotary:
        keys = [ChildAxis(of=of, outer=ratio) for of in places["query"]]
        keys += [ChildAxis(of=of) for of in places["key"]]
        children.append(ChildGroup(name=f"{prefix}keys", size=size, axes=tuple(keys)))
    if ratio > 1:
        queries = [ChildAxis(of=of, inner=size) for of in places["query"] + places["output"]]
        children.append(ChildGroup(name=f"{prefix}queries", size=ratio, axes=tuple(queries)))
    return children
