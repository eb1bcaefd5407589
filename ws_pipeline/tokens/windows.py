"""Windows of tokens for training and embedding: consecutive tokens of one model as numpy arrays.

:class:`ModelTokens` reads any window of one model; :class:`WindowDataset` draws random windows from
a corpus, the same for the same (seed, step, rank), so a run resumes at any step by index alone.
Does I/O (reads shards). Not here: normalisation (the loss does it from ``scale``), torch tensors.

A step of 32 windows x 64 tokens x 64 weights over 250 cached models takes about 1 ms on one core.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ws_pipeline.arrays import NUM_POSITION_COORDINATES, NUM_SCALE_FEATURES
from ws_pipeline.errors import ConfigError
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_values import CheckpointValues, ShardValues
from ws_pipeline.tokens.layout import TokenIndex, TokenLayout
from ws_pipeline.tokens.manifests import read_token_layers
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.tokens.shard_format import open_shard
from ws_pipeline.weights.normalization import log_std

CACHE_BYTES = 2**30
"""Default bound on tokens kept in memory by a data set; 250 models of 100 k parameters need 0.1."""

MAX_CACHED_MODEL_SHARE = 8
"""A model larger than this fraction of the cache is read window by window instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenWindow:
    """Consecutive tokens of one model.

    Attributes:
        tokens: True weights, zero where padded; float32 ``(window, token_size)``.
        lengths: Real weights in each token; int32 ``(window,)``.
        positions: (place in the model, layer, place in the layer); int64 ``(window, 3)``.
        scale: (mean, log std) of the token's layer; float32 ``(window, 2)``.
        layer: Row of the model's token-layer table; int32 ``(window,)``.
    """

    tokens: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int64]
    scale: npt.NDArray[np.float32]
    layer: npt.NDArray[np.int32]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Where real weights are; ``(window, token_size)``."""
        mask: npt.NDArray[np.bool_] = np.arange(self.tokens.shape[1]) < self.lengths[:, None]
        return mask

    @property
    def num_bytes(self) -> int:
        """Memory of all arrays."""
        arrays = (self.tokens, self.lengths, self.positions, self.scale, self.layer)
        return sum(array.nbytes for array in arrays)

    def slice(self, start: int, stop: int) -> "TokenWindow":
        """Return the tokens [start, stop) of this window, without copying."""
        return TokenWindow(
            tokens=self.tokens[start:stop],
            lengths=self.lengths[start:stop],
            positions=self.positions[start:stop],
            scale=self.scale[start:stop],
            layer=self.layer[start:stop],
        )


class ModelTokens:
    """The token sequence of one model, read window by window.

    Args:
        layers: Its token layers, in order.
        values: Where their numbers come from.
        layout: How layers are cut.
    """

    def __init__(
        self, layers: list[TokenLayer], values: ShardValues | CheckpointValues, layout: TokenLayout
    ) -> None:
        self.layers = layers
        self.layout = layout
        self.index = TokenIndex(layout, [(layer.rows, layer.cols) for layer in layers])
        self._values = values
        moments = [(layer.mean, log_std(layer.std)) for layer in layers]
        self._scale = np.array(moments, dtype=np.float32).reshape(-1, NUM_SCALE_FEATURES)

    @classmethod
    def open(cls, store: Store, row: Mapping[str, Any], layout: TokenLayout) -> "ModelTokens":
        """Open a row of the corpus or of ``tokens/shards`` (``shard_sha256`` and ``layers``)."""
        shard = open_shard(store.blobs.local_path(row["shard_sha256"]))
        return cls(read_token_layers(row), ShardValues(shard), layout)

    @classmethod
    def open_path(cls, path: str | Path, layout: TokenLayout) -> "ModelTokens":
        """Open a checkpoint directly, without a shard: a file, a sharded folder or a repo folder.

        Raises:
            WeightsError: ``non_finite_weights``, or nothing in it can be tokenised.
        """
        values, layers = CheckpointValues.open(path)
        return cls(layers, values, layout)

    @property
    def num_tokens(self) -> int:
        """Tokens of the model."""
        return self.index.num_tokens

    def read(self, start: int, stop: int) -> TokenWindow:
        """Read the tokens [start, stop), which must lie within the model."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"the model has {self.num_tokens} tokens, not [{start}, {stop})")
        layer = self.index.layer_of(start, stop)
        lengths = self.index.lengths(start, stop).astype(np.int32)
        tokens = np.zeros((stop - start, self.layout.token_size), dtype=np.float32)
        # Within a layer and from layer to layer, token order is value order: one masked assignment.
        mask = np.arange(self.layout.token_size) < lengths[:, None]
        tokens[mask] = self._read_values(start, stop, layer, lengths)
        return TokenWindow(
            tokens=tokens,
            lengths=lengths,
            positions=self.index.positions(start, stop),
            scale=self._scale[layer],
            layer=layer,
        )

    def _read_values(
        self,
        start: int,
        stop: int,
        layer: npt.NDArray[np.int32],
        lengths: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.float32]:
        parts: list[npt.NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)]
        offsets = self.index.offsets(start, stop)
        for found in np.unique(layer):
            (places,) = np.nonzero(layer == found)
            first, last = places[0], places[-1]
            count = int(offsets[last] + lengths[last] - offsets[first])
            parts.append(self._values.read(self.layers[found], int(offsets[first]), count))
        return np.concatenate(parts)


Batch = dict[str, npt.NDArray[Any]]


class WindowDataset:
    """Random windows over a corpus, map-style over steps.

    Every draw picks a model by its ``weight`` and a start uniformly within it; models shorter than
    the window are padded. The draws of a step depend on (seed, step) alone and are dealt to the
    processes in turn, so one process or several see the same windows.

    Args:
        store: Where the shards are.
        rows: Corpus rows: ``shard_sha256``, ``layers`` and ``weight``.
        layout: How layers are cut.
        window_size: Tokens per window.
        batch_size: Windows per step of all processes together.
        num_steps: Steps there are.
        seed: Of the draws.
        rank: Which process this is.
        num_processes: How many there are; divides ``batch_size``.
        cache_bytes: Bound on tokens kept in memory.
    """

    def __init__(
        self,
        store: Store,
        rows: pl.DataFrame,
        *,
        layout: TokenLayout,
        window_size: int,
        batch_size: int,
        num_steps: int,
        seed: int,
        rank: int = 0,
        num_processes: int = 1,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        _check_rows(rows)
        if batch_size % num_processes or not 0 <= rank < num_processes:
            raise ConfigError(
                f"batch_size {batch_size} must be a multiple of num_processes {num_processes}, "
                f"and rank {rank} below it."
            )
        self._store = store
        self._rows = rows.select("shard_sha256", "layers").to_dicts()
        self.layout = layout
        self.window_size = window_size
        self.batch_size = batch_size
        self._num_steps = num_steps
        self._seed = seed
        self._share = slice(rank, None, num_processes)
        self._cumulative_weight = np.cumsum(rows["weight"].to_numpy().astype(np.float64))
        self._models: dict[int, ModelTokens] = {}
        self._cache = _WindowCache(cache_bytes)

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._num_steps

    def __getitem__(self, step: int) -> Batch:
        """Return this process's windows of a step.

        Returns:
            ``tokens`` float32 (batch, window, token_size), ``mask`` bool of the same shape,
            ``positions`` int64 (batch, window, 3), ``scale`` float32 (batch, window, 2), ``layer``
            int32 (batch, window) with -1 where padded, ``model`` int32 (batch,): row of ``rows``.
        """
        if not 0 <= step < self._num_steps:
            raise IndexError(f"there are {self._num_steps} steps, not {step + 1}")
        generator = np.random.default_rng([self._seed, step])
        draws = generator.random((self.batch_size, 2))[self._share]
        models = np.searchsorted(
            self._cumulative_weight, draws[:, 0] * self._cumulative_weight[-1], side="right"
        )
        models = np.minimum(models, len(self._rows) - 1)
        windows = [
            self._read(int(model), float(place))
            for model, place in zip(models, draws[:, 1], strict=True)
        ]
        batch = stack_windows(windows, self.window_size)
        batch["model"] = models.astype(np.int32)
        return batch

    def _read(self, model: int, place: float) -> TokenWindow:
        tokens = self._models.get(model)
        if tokens is None:
            tokens = ModelTokens.open(self._store, self._rows[model], self.layout)
            self._models[model] = tokens
        start = int(place * max(1, tokens.num_tokens - self.window_size + 1))
        stop = min(start + self.window_size, tokens.num_tokens)
        whole = self._cache.get(model, tokens)
        return tokens.read(start, stop) if whole is None else whole.slice(start, stop)


def stack_windows(windows: list[TokenWindow], window_size: int) -> Batch:
    """Stack windows into one batch, padding short ones: zeros, mask False, layer -1."""
    batch_size, token_size = len(windows), windows[0].tokens.shape[1]
    tokens = np.zeros((batch_size, window_size, token_size), dtype=np.float32)
    lengths = np.zeros((batch_size, window_size), dtype=np.int32)
    positions = np.zeros((batch_size, window_size, NUM_POSITION_COORDINATES), dtype=np.int64)
    scale = np.zeros((batch_size, window_size, NUM_SCALE_FEATURES), dtype=np.float32)
    layer = np.full((batch_size, window_size), -1, dtype=np.int32)
    for row, window in enumerate(windows):
        size = len(window.lengths)
        tokens[row, :size] = window.tokens
        lengths[row, :size] = window.lengths
        positions[row, :size] = window.positions
        scale[row, :size] = window.scale
        layer[row, :size] = window.layer
    return {
        "tokens": tokens,
        "mask": np.arange(token_size, dtype=np.int32) < lengths[:, :, None],
        "positions": positions,
        "scale": scale,
        "layer": layer,
    }


class _WindowCache:
    """Whole models in memory, least recently used out first, within a bound on bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._models: OrderedDict[int, TokenWindow] = OrderedDict()

    def get(self, key: int, tokens: ModelTokens) -> TokenWindow | None:
        """Return the whole model, or None where it is too large to keep."""
        whole = self._models.get(key)
        if whole is not None:
            self._models.move_to_end(key)
            return whole
        num_bytes = tokens.num_tokens * tokens.layout.token_size * np.dtype(np.float32).itemsize
        if num_bytes > self._max_bytes // MAX_CACHED_MODEL_SHARE:
            return None
        whole = tokens.read(0, tokens.num_tokens)
        self._models[key] = whole
        self._num_bytes += whole.num_bytes
        while self._num_bytes > self._max_bytes and len(self._models) > 1:
            _, dropped = self._models.popitem(last=False)
            self._num_bytes -= dropped.num_bytes
        return whole


def _check_rows(rows: pl.DataFrame) -> None:
    weights = rows["weight"].to_numpy()
    if rows.is_empty() or not np.isfinite(weights).all() or weights.min() < 0 or not weights.sum():
        raise ConfigError(
            f"A data set needs models with weights that are not negative and not all zero; "
            f"it was given {rows.height} models."
        )
