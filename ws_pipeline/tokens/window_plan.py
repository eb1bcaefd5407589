"""From windows to batches: what to read, where it goes, and the table beside it. No I/O.

In token order the values of a layer lie one behind the other on disk, and so do the layers of one
dtype: a window is one run of bytes per dtype that it touches, whatever the layout, and serving it
is one read into the batch. Everything here is array arithmetic over the windows of several batches
at once, since a call costs as much as a thousand elements.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ws_pipeline.tokens.batch_plan import (
    F32,
    F64,
    ITEM_BYTES,
    BatchPlan,
    Integers,
    Reads,
    WindowSpans,
)
from ws_pipeline.tokens.layer_table import DTYPES, LayerTable
from ws_pipeline.tokens.window_batch import NUM_SCALES, PIECE_BYTES, PieceField, Section, align

MAX_FACTOR_EXPONENT = 126
"""Two to this power and its inverse are normal float32 numbers. That stored values times two to
their exponent are exact is checked when they are packed, and then so is any split of the factor."""


def plan_batches(
    table: LayerTable, spans: WindowSpans, *, window_size: int, batch_size: int
) -> list[BatchPlan]:
    """Plan the windows of one or several batches.

    Args:
        table: The layers of their models.
        spans: The windows, batch after batch.
        window_size: Tokens in each window, padding included.
        batch_size: Windows in each batch; divides their number.
    """
    num_batches = len(spans.models) // batch_size
    parts = _cut_spans(table, spans, window_size)
    batch = parts.window // batch_size
    first = np.searchsorted(batch, np.arange(num_batches + 1))
    line = _line_up(parts, batch)
    pieces, scales = _fill_tables(table, spans, parts, line)
    sections, section_bytes, num_bytes = _place_sections(parts, line, np.diff(first))
    reads, first_read = _merge_reads(table, spans, parts, line, section_bytes)
    real = np.add.reduceat(spans.stops - spans.starts, np.arange(num_batches) * batch_size).tolist()
    bounds, read_bounds = first.tolist(), first_read.tolist()
    return [
        BatchPlan(
            num_bytes=num_bytes[index],
            pieces=pieces[bounds[index] : bounds[index + 1]],
            scales=scales[bounds[index] : bounds[index + 1]],
            sections=tuple(sections[index]),
            reads=reads.part(read_bounds[index], read_bounds[index + 1]),
            models=spans.models[index * batch_size : (index + 1) * batch_size],
            window_size=window_size,
            token_size=table.layout.token_size,
            num_real_tokens=real[index],
        )
        for index in range(num_batches)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """Pieces in the order of the windows; each array ``(pieces,)``.

    Attributes:
        window: Which window.
        layer: Row of the table.
        real: False for padding.
        num_tokens: How many.
        place: Of the first token in its layer.
        value: First value in its layer.
        num_values: How many; none for padding.
        stored: Dtype on disk.
    """

    window: Integers
    layer: Integers
    real: npt.NDArray[np.bool_]
    num_tokens: Integers
    place: Integers
    value: Integers
    num_values: Integers
    stored: Integers


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """Pieces in the order of the batch's bytes: batch by batch, dtype by dtype.

    Attributes:
        order: Piece at each place of the line; ``(pieces,)``.
        batch: Of each place.
        served: Dtype of each place, as it travels.
        section: Section of each place.
        first: Place at which each section begins; ``(sections,)``.
        value: First value of each place, counted over all; ``(pieces,)``.
    """

    order: Integers
    batch: Integers
    served: Integers
    section: Integers
    first: Integers
    value: Integers


def _cut_spans(table: LayerTable, spans: WindowSpans, window_size: int) -> _Parts:
    """Cut every window where a layer ends, and pad the short ones with one piece more."""
    base = table.model_starts[spans.models]
    begin, end = base + spans.starts, base + spans.stops
    first = table.layer_of(begin)
    counts = table.layer_of(end - 1) - first + 1
    missing = window_size - (spans.stops - spans.starts)
    padded = counts + (missing > 0)
    window = np.repeat(np.arange(len(first)), padded)
    nth = np.arange(len(window)) - np.repeat(np.cumsum(padded) - padded, padded)
    real = nth < counts[window]
    layer = first[window] + np.where(real, nth, counts[window] - 1)
    start = np.maximum(table.first_tokens[layer], begin[window])
    stop = np.minimum(table.first_tokens[layer + 1], end[window])
    place = start - table.first_tokens[layer]
    value = table.value_of(layer, place)
    num_values = table.value_of(layer, stop - table.first_tokens[layer]) - value
    num_tokens = np.where(real, stop - start, missing[window])
    kept = num_tokens > 0  # layers without tokens are stepped over
    return _Parts(
        window=window[kept],
        layer=layer[kept],
        real=real[kept],
        num_tokens=num_tokens[kept],
        place=place[kept],
        value=value[kept],
        num_values=np.where(real, num_values, 0)[kept],
        stored=table.dtypes[layer[kept]],
    )


def _line_up(parts: _Parts, batch: Integers) -> _Line:
    served = np.where(parts.stored == F64, F32, parts.stored)
    order = np.lexsort((served, batch))
    served = served[order]
    counts = parts.num_values[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (np.diff(batch) != 0) | (np.diff(served) != 0)
    return _Line(
        order=order,
        batch=batch,  # the line begins with it, so it stays in order
        served=served,
        section=np.cumsum(begins) - 1,
        first=np.flatnonzero(begins),
        value=np.cumsum(counts) - counts,
    )


def _fill_tables(
    table: LayerTable, spans: WindowSpans, parts: _Parts, line: _Line
) -> tuple[Integers, npt.NDArray[np.float32]]:
    model, layer = spans.models[parts.window], parts.layer
    pieces = np.empty((len(layer), len(PieceField)), dtype=np.int64)
    pieces[:, PieceField.PLACE_IN_MODEL] = (
        table.first_tokens[layer] + parts.place - table.model_starts[model]
    )
    pieces[:, PieceField.LAYER] = layer - table.first_layers[model]
    pieces[:, PieceField.PLACE_IN_LAYER] = parts.place
    pieces[:, PieceField.TOKENS_PER_RUN] = table.tokens_per_run[layer]
    pieces[:, PieceField.RUN_LENGTH] = table.run_lengths[layer]
    # Sections are counted within their batch.
    first_section = line.section[np.searchsorted(line.batch, line.batch)]
    pieces[line.order, PieceField.SECTION] = line.section - first_section
    pieces[~parts.real] = 0
    pieces[~parts.real, PieceField.TOKENS_PER_RUN] = 1  # a divisor
    pieces[:, PieceField.NUM_TOKENS] = parts.num_tokens
    exponents = np.where(parts.stored == F64, 0, table.exponents[layer])
    first = np.clip(exponents, -MAX_FACTOR_EXPONENT, MAX_FACTOR_EXPONENT)
    scales = np.empty((len(layer), NUM_SCALES), dtype=np.float32)
    scales[:, :2] = table.scale[layer]
    scales[:, 2] = np.ldexp(np.float32(1.0), first)
    scales[:, 3] = np.ldexp(np.float32(1.0), exponents - first)
    scales[~parts.real] = 0.0
    return pieces, scales


def _place_sections(
    parts: _Parts, line: _Line, num_pieces: Integers
) -> tuple[list[list[Section]], Integers, list[int]]:
    """Return the sections of each batch, where each section begins, and each batch's size."""
    counts = np.add.reduceat(parts.num_values[line.order], line.first).tolist()
    sections: list[list[Section]] = [[] for _ in num_pieces]
    num_bytes = [align(int(count) * PIECE_BYTES) for count in num_pieces]
    starts = np.empty(len(line.first), dtype=np.int64)
    for index, first in enumerate(line.first.tolist()):
        batch, dtype = int(line.batch[first]), int(line.served[first])
        starts[index] = start = num_bytes[batch]
        section = Section(dtype=DTYPES[dtype], start_byte=start, num_values=counts[index])
        sections[batch].append(section)
        num_bytes[batch] = align(start + counts[index] * int(ITEM_BYTES[dtype]))
    return sections, starts, num_bytes


def _merge_reads(
    table: LayerTable,
    spans: WindowSpans,
    parts: _Parts,
    line: _Line,
    section_bytes: Integers,
) -> tuple[Reads, Integers]:
    """Join what lies side by side on disk; the reads, and where those of each batch begin."""
    places = np.flatnonzero(parts.num_values[line.order])
    chosen = line.order[places]
    window, stored, counts = parts.window[chosen], parts.stored[chosen], parts.num_values[chosen]
    start = table.offsets[parts.layer[chosen]] + parts.value[chosen]
    begins = np.ones(len(chosen), dtype=np.bool_)
    begins[1:] = (
        (np.diff(window) != 0)
        | (np.diff(stored) != 0)
        | (start[1:] != start[:-1] + counts[:-1])
        | (stored[1:] == F64)
    )
    heads = np.flatnonzero(begins)
    place, chosen = places[heads], chosen[heads]
    section = line.section[place]
    within = line.value[place] - line.value[line.first[section]]
    num_batches = int(line.batch[-1]) + 1
    reads = Reads(
        models=spans.models[parts.window[chosen]],
        windows=parts.window[chosen] % (len(spans.models) // num_batches),
        dtypes=stored[heads],
        starts=start[heads],
        counts=np.add.reduceat(counts, heads),
        targets=section_bytes[section] + within * ITEM_BYTES[line.served[place]],
        exponents=np.where(stored[heads] == F64, table.exponents[parts.layer[chosen]], 0),
    )
    return reads, np.searchsorted(line.batch[place], np.arange(num_batches + 1))
