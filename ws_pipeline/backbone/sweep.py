"""Walking over whole models in windows with a halo. Opens shards; models read themselves.

A long model is cut into windows that overlap: each gives context of `halo` tokens on either side
and keeps its inner part, so that the kept parts cover every token exactly once (the papers use
window 512, halo 64). Memory does not depend on a model's size.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from ws_pipeline.backbone.batches import to_windows
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.errors import ConfigError
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.windows import ModelTokens, read_windows

DEFAULT_WINDOW = 512
"""The papers' window for embedding, for a backbone that was not trained."""

HALO_SHARE = 8
"""The papers' halo of 64 in a window of 512, as a share."""

BATCH_TOKENS = 8_192
"""Tokens in one pass: 128 windows of 64; more is not faster on a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """One window of one model: what is read, and what is kept of it (token indices)."""

    model: int
    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def kept(self) -> slice:
        """The kept tokens as a slice of the window."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweptBatch:
    """Some chunks and their windows, padded to the longest; row i is chunk i."""

    chunks: Sequence[Chunk]
    windows: Windows


def plan_chunks(model: int, num_tokens: int, *, window: int, halo: int) -> Iterator[Chunk]:
    """Cut one model into chunks of at most `window` tokens; the kept parts tile it.

    Raises:
        ConfigError: If the halos leave nothing of a window to keep.
    """
    if not 0 <= 2 * halo < window:
        raise ConfigError(f"sweep: halo must lie in [0, window / 2), got {halo} for {window}")
    stride = num_tokens if num_tokens <= window else window - 2 * halo
    for keep_start in range(0, num_tokens, max(stride, 1)):
        keep_stop = min(num_tokens, keep_start + stride)
        yield Chunk(
            model=model,
            start=max(0, keep_start - halo),
            stop=min(num_tokens, keep_stop + halo),
            keep_start=keep_start,
            keep_stop=keep_stop,
        )


def sweep_models(
    models: Iterable[ModelTokens], *, window: int, halo: int, device: torch.device
) -> Iterator[SweptBatch]:
    """Yield every model's chunks in order, many to a batch.

    Args:
        models: Opened one after the other, as the sweep comes to them.
        window: Tokens that the backbone sees at once, halos included.
        halo: Tokens of context on either side.
        device: Where the windows go.
    """
    planned = (
        (chunk, tokens)
        for model, tokens in enumerate(models)
        for chunk in plan_chunks(model, tokens.num_tokens, window=window, halo=halo)
    )
    size = max(1, BATCH_TOKENS // window)
    while batch := list(islice(planned, size)):
        chunks = [chunk for chunk, _ in batch]
        windows = read_windows(
            [tokens for _, tokens in batch],
            [(chunk.start, chunk.stop) for chunk in chunks],
            window_size=max(chunk.stop - chunk.start for chunk in chunks),
        )
        yield SweptBatch(chunks=chunks, windows=to_windows(windows, device))


def open_models(
    backbone: Backbone, store: Store, rows: Iterable[Mapping[str, Any]]
) -> Iterator[ModelTokens]:
    """Open corpus rows one after the other, cut as the backbone was trained on them."""
    layout = layout_of(backbone)
    return (ModelTokens.open(store, row, layout) for row in rows)


def choose_window(backbone: Backbone, window: int | None, halo: int | None) -> tuple[int, int]:
    """Return (window, halo), with the backbone's own for what is None."""
    window = window or backbone.config.window_size or DEFAULT_WINDOW
    return window, window // HALO_SHARE if halo is None else halo


def layout_of(backbone: Backbone) -> TokenLayout:
    """Return the token layout that a backbone was trained on."""
    return TokenLayout(kind=backbone.config.layout, token_size=backbone.config.token_size)
