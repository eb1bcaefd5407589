"""An inspection as tables for a terminal. Pure: no I/O.

Layers that differ in a block's number alone make one row, so that a model of 80 blocks reads like
one of 2. Narrow terminals get fewer columns, never cut ones. Not here: the inspection itself
(``weights.inspection``), whose JSON always lists everything.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

MAX_ROWS = 200
"""Of one table; names without numbers, ten thousand of them, are for the JSON."""
WIDE_COLUMNS = 100
"""From here on there is room for dtype and statistics."""

_NUMBER = re.compile(r"(?:^|(?<=[./])|(?<=__))\d+(?=[./]|$)")
"""Of a block, or what ONNX writers append; ``ln_1`` and ``ln_2`` are two things."""

Row = Mapping[str, Any]


def render_inspection(inspection: Row, *, width: int = 120) -> RenderableType:
    """Return an inspection as tables that fit into ``width`` columns."""
    parts: list[RenderableType] = [Text(_headline(inspection), style="bold")]
    parts += [Text(line) for line in _remarks(inspection)]
    total = max(1, inspection["num_params"])
    roles = _make_table("Roles", ("role", "parameters", "share"), numeric=(1, 2))
    for role, count in inspection["roles"].items():
        roles.add_row(role, f"{count:,}", f"{count / total:.1%}")
    groups = group_layers(inspection["layers"])
    parts += [
        Text(),
        roles,
        Text(),
        _render_layers(groups, inspection, is_wide=width >= WIDE_COLUMNS),
    ]
    if len(groups) > MAX_ROWS:
        parts.append(Text(f"... and {len(groups) - MAX_ROWS:,} more; --json lists all"))
    if inspection["oddities"]:
        oddities = _make_table("Oddities", ("what", "tensor", "detail"))
        for oddity in inspection["oddities"][:MAX_ROWS]:
            oddities.add_row(oddity["kind"], Text(oddity["tensor"]), Text(oddity["detail"]))
        parts += [Text(), oddities]
        if len(inspection["oddities"]) > MAX_ROWS:
            hidden = len(inspection["oddities"]) - MAX_ROWS
            parts.append(Text(f"... and {hidden:,} more; --json lists all"))
    return Group(*parts)


def group_layers(layers: Sequence[Row]) -> list[list[Row]]:
    """Put layers together that differ in the numbers of their names alone, in plan order."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for layer in layers:
        key = (
            _NUMBER.sub("#", layer["name"]), layer["role"], tuple(layer["shape"]), layer["dtype"],
            layer["bias_name"] != "", layer["treatment"], layer["why"], layer["transposed"],
        )  # fmt: skip
        groups.setdefault(key, []).append(layer)
    return list(groups.values())


def name_group(names: Sequence[str]) -> str:
    """Return the names as one: every number that differs becomes ``{first-last}``."""
    numbers = [_NUMBER.findall(name) for name in names]
    pieces = _NUMBER.split(names[0])
    merged = pieces[0]
    for place, piece in enumerate(pieces[1:]):
        values = sorted({int(found[place]) for found in numbers})
        first, last = values[0], values[-1]
        is_run = len(values) == last - first + 1
        many = f"{{{first}-{last}}}" if is_run else "{" + _shorten(values) + "}"
        merged += (numbers[0][place] if len(values) == 1 else many) + piece
    return merged


def _shorten(values: Sequence[int]) -> str:
    shown = [str(value) for value in values]
    return ",".join(shown if len(shown) <= 4 else [*shown[:2], "...", shown[-1]])


def _headline(inspection: Row) -> str:
    return (
        f"{inspection['num_params']:,} parameters, {inspection['num_bytes']:,} bytes, "
        f"{len(inspection['tensors']):,} tensors in {inspection['num_layers']:,} layers"
    )


def _remarks(inspection: Row) -> Iterable[str]:
    treatments = inspection["treatments"]
    kept = [f"{count:,} bytes {name}" for name, count in treatments.items() if count]
    dtypes = [f"{count:,} {dtype}" for dtype, count in inspection["dtypes"].items()]
    yield f"{', '.join(kept) or 'nothing'}; parameters by dtype: {', '.join(dtypes) or 'none'}"
    for form in inspection["quantization"]:
        what = "packed: they are not tokenised" if form["is_packed"] else "8-bit floats with scales"
        yield f"{form['num_weights']:,} weights quantised by {form['method']}, {what}"
    if not inspection["reads_values"]:
        yield "Headers only: the weights were not read, so there are no statistics and no oddities."
    elif not inspection["oddities"]:
        yield "No oddities: no NaN or infinity, no dead outputs, no constant or duplicated layers."


def _render_layers(groups: Sequence[Sequence[Row]], inspection: Row, *, is_wide: bool) -> Table:
    columns = ["layer", "role", "shape", "parameters"]
    columns += ["dtype"] if is_wide else []
    columns += ["std"] if inspection["reads_values"] else []
    columns += ["mean"] if inspection["reads_values"] and is_wide else []
    numeric = [columns.index(name) for name in ("parameters", "std", "mean") if name in columns]
    table = _make_table("Layers", tuple(columns), numeric=tuple(numeric))
    for group in groups[:MAX_ROWS]:
        first = group[0]
        cells: dict[str, str | Text] = {
            "layer": _name_row(group),
            "role": first["role"],
            "shape": "x".join(str(dim) for dim in first["shape"]) or "scalar",
            "parameters": f"{sum(layer['num_params'] for layer in group):,}",
            "dtype": first["dtype"],
            "std": _show_range([layer.get("std") for layer in group], is_wide=is_wide),
            "mean": _show_range([layer.get("mean") for layer in group], is_wide=is_wide),
        }
        table.add_row(*(cells[name] for name in columns))
    return table


def _name_row(group: Sequence[Row]) -> Text:
    """Return the name of a row's layers, and after it what else there is to know of them."""
    first = group[0]
    notes = [f"x{len(group)}"] if len(group) > 1 else []
    notes += ["+bias"] if first["bias_name"] else []
    notes += ["output last"] if first["transposed"] else []
    if first["treatment"] != "tokenised":
        notes.append(f"{first['treatment']}: {first['why']}")
    name = Text(name_group([layer["name"] for layer in group]))
    return name.append("  " + ", ".join(notes), style="dim") if notes else name


def _show_range(values: Sequence[float | None], *, is_wide: bool) -> str:
    """Return least and greatest, or where there is little room the one in the middle."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    low, high = f"{known[0]:.2g}", f"{known[-1]:.2g}"
    if low == high:
        return low
    return f"{low} to {high}" if is_wide else f"{known[len(known) // 2]:.2g}"


def _make_table(title: str, columns: tuple[str, ...], *, numeric: tuple[int, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        is_number = index in numeric
        table.add_column(
            column,
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=is_number or column in {"role", "dtype", "what"},
        )
    return table
