"""From raw values to windows, on the device: mask, positions, scale and true weights. No I/O.

What it is: the arithmetic that ``tokens.window_batch`` leaves to the place where the training runs.
A batch of 16-bit weights crosses the bus with 2 bytes per weight in place of 5 and more. Values,
masks and positions are those of the layers to the bit; nothing here waits for the device.
"""

import torch
from torch import Tensor

from ws_pipeline.arrays import NUM_POSITION_COORDINATES, NUM_SCALE_FEATURES
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.tokens.window_batch import Section, SegmentField, WindowBatch

TORCH_DTYPES: dict[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
"""Of the dtypes that values travel in; all of their values are float32 numbers."""


def to_windows(batch: WindowBatch, device: torch.device) -> Windows:
    """Move a batch to the device and expand it there; see :class:`Windows` for the axes.

    The batch's memory may be written to again once the device has done what it was given so far.
    """
    data = torch.from_numpy(batch.data).to(device, non_blocking=True)
    segments, scales = view_tables(data, batch.num_segments)
    num_slots = batch.num_windows * batch.window_size
    num_tokens = segments[:, SegmentField.NUM_TOKENS]
    every = torch.arange(batch.num_segments, device=device)
    segment = torch.repeat_interleave(every, num_tokens, output_size=num_slots)
    nth = torch.arange(num_slots, device=device) - (num_tokens.cumsum(0) - num_tokens)[segment]
    field = segments[segment].unbind(dim=1)  # each (slots,)
    place = field[SegmentField.PLACE_IN_LAYER] + nth
    run = place // field[SegmentField.TOKENS_PER_RUN]
    chunk = place - run * field[SegmentField.TOKENS_PER_RUN]
    length = field[SegmentField.RUN_LENGTH] - chunk * batch.token_size
    weight = torch.arange(batch.token_size, device=device)
    mask = weight < length[:, None]  # (slots, token_size)
    first = run * field[SegmentField.RUN_LENGTH] + chunk * batch.token_size
    index = (field[SegmentField.FIRST_VALUE] + first)[:, None] + weight
    values = join_sections(data, batch.sections)[torch.where(mask, index, 0)]
    scale = scales[segment]
    tokens = torch.where(mask, values * scale[:, 2:3] * scale[:, 3:4], 0.0)
    real = (length > 0).to(torch.int64)
    positions = torch.stack(
        (
            field[SegmentField.PLACE_IN_MODEL] + nth * real,
            field[SegmentField.LAYER],
            place * real,
        ),
        dim=1,
    )
    shape = (batch.num_windows, batch.window_size)
    return Windows(
        tokens=tokens.view(*shape, batch.token_size),
        mask=mask.view(*shape, batch.token_size),
        positions=positions.view(*shape, NUM_POSITION_COORDINATES),
        scale=scale[:, :NUM_SCALE_FEATURES].contiguous().view(*shape, NUM_SCALE_FEATURES),
    )


def view_tables(data: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Return the tables of segments and scales inside of a batch's bytes."""
    split = num_segments * len(SegmentField) * 8
    segments = data[:split].view(torch.int64).view(num_segments, len(SegmentField))
    scales = data[split : split + num_segments * 16].view(torch.float32)
    return segments, scales.view(num_segments, -1)


def join_sections(data: Tensor, sections: tuple[Section, ...]) -> Tensor:
    """Return the values of all sections in float32, as they are stored; ``(num_values,)``."""
    parts = []
    for section in sections:
        dtype = TORCH_DTYPES[section.dtype]
        stop = section.start_byte + section.num_values * dtype.itemsize
        parts.append(data[section.start_byte : stop].view(dtype).to(torch.float32))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
