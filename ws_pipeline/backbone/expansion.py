"""From raw values to windows, on the device: mask, positions, scale and true weights. No I/O.

What it is: the arithmetic that ``tokens.window_batch`` leaves to the place where the training runs.
A batch of 16-bit weights crosses the bus with 2 bytes per weight in place of 5 and more. Values,
masks and positions are those of the layers to the bit; nothing here waits for the device.
"""

import torch
from torch import Tensor

from ws_pipeline.arrays import NUM_POSITION_COORDINATES, NUM_SCALE_FEATURES
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.tokens.window_batch import PieceField, Section, WindowBatch

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
    pieces, scales = view_tables(data, batch.num_pieces)
    num_slots = batch.num_windows * batch.window_size
    num_tokens = pieces[:, PieceField.NUM_TOKENS]
    every = torch.arange(batch.num_pieces, device=device)
    piece = torch.repeat_interleave(every, num_tokens, output_size=num_slots)
    nth = torch.arange(num_slots, device=device) - (num_tokens.cumsum(0) - num_tokens)[piece]
    field = pieces[piece].unbind(dim=1)  # each (slots,)
    place = field[PieceField.PLACE_IN_LAYER] + nth
    chunk = place % field[PieceField.TOKENS_PER_RUN]
    length = field[PieceField.RUN_LENGTH] - chunk * batch.token_size
    mask = torch.arange(batch.token_size, device=device) < length[:, None]
    scale = scales[piece]
    tokens = spread_values(data, batch.sections, mask, field[PieceField.SECTION])
    tokens.mul_(scale[:, 2:3]).mul_(scale[:, 3:4])
    real = (length > 0).to(torch.int64)
    positions = torch.stack(
        (
            field[PieceField.PLACE_IN_MODEL] + nth * real,
            field[PieceField.LAYER],
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


def view_tables(data: Tensor, num_pieces: int) -> tuple[Tensor, Tensor]:
    """Return the tables of pieces and scales inside of a batch's bytes."""
    split = num_pieces * len(PieceField) * 8
    pieces = data[:split].view(torch.int64).view(num_pieces, len(PieceField))
    scales = data[split : split + num_pieces * 16].view(torch.float32)
    return pieces, scales.view(num_pieces, -1)


def spread_values(
    data: Tensor, sections: tuple[Section, ...], mask: Tensor, section_of: Tensor
) -> Tensor:
    """Put the stored values where the mask has room for them, in their order.

    Args:
        data: A batch's bytes.
        sections: The values in them.
        mask: ``(slots, token_size)``, real weights.
        section_of: Section of each slot; ``(slots,)``.

    Returns:
        ``(slots, token_size)`` in float32, zero where the mask is false.
    """
    tokens = torch.zeros(mask.shape, dtype=torch.float32, device=data.device)
    for index, section in enumerate(sections):
        dtype = TORCH_DTYPES[section.dtype]
        stop = section.start_byte + section.num_values * dtype.itemsize
        values = data[section.start_byte : stop].view(dtype).to(torch.float32)
        chosen = mask if len(sections) == 1 else mask & (section_of == index)[:, None]
        tokens.masked_scatter_(chosen, values)
    return tokens
