"""Windows of tokens for training and embedding: consecutive tokens of one model, in batches.

:class:`WindowDataset` serves random windows from a corpus, the same for the same seed and step, so
a run resumes at any step by index alone, and a step's windows do not depend on how many processes
share them. :func:`read_windows` reads given windows of given models. Does I/O (reads shards). Not
here: mask, positions and normalisation, which are the device's work; torch tensors.

Figures: benchmarks/windows.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from ws_pipeline.errors import ConfigError
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.ranges import DEFAULT_CACHE_BYTES, LocalRanges, open_ranges
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.batch_plan import BatchPlan, Reads, WindowSpans, max_batch_bytes
from ws_pipeline.tokens.draws import WindowDraws
from ws_pipeline.tokens.layer_table import LayerTable
from ws_pipeline.tokens.layer_values import CheckpointValues, ModelValues, ShardValues, read_values
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.manifests import read_token_layers
from ws_pipeline.tokens.permuted_models import PermutedModels
from ws_pipeline.tokens.permuted_values import PermutedValues
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.tokens.window_batch import WindowBatch
from ws_pipeline.tokens.window_plan import plan_batches
from ws_pipeline.tokens.window_prefetch import PREFETCH_STEPS, Prefetch

UnitOrder = Literal["stored", "permuted"]
"""How a window shows the hidden units of its model: as they lie, or in a random order."""

PLANNED_STEPS = 32
"""Steps that are planned in one go."""

PLANNED_TOKENS = 2**18
"""Bound on the tokens of such steps; 50 MB if each is of another layer, else 1."""


class ModelTokens:
    """The token sequence of one model.

    Args:
        layers: Its token layers, in order.
        values: Where their numbers come from.
        layout: How layers are cut.
    """

    def __init__(self, layers: list[TokenLayer], values: ModelValues, layout: TokenLayout) -> None:
        self.layers = layers
        self.values = values
        self.table = LayerTable.of_model(layers, layout)

    @classmethod
    def open(cls, store: Store, row: Mapping[str, Any], layout: TokenLayout) -> "ModelTokens":
        """Open a row of the corpus or of ``tokens/shards`` (``shard_sha256`` and ``layers``)."""
        blobs, sha256 = store.blobs, row["shard_sha256"]
        blobs.local_path(sha256)  # of a remote store: all of it will be read
        folder = blobs.folder if isinstance(blobs.folder, LocalFolder) else None
        ranges = LocalRanges(folder or LocalFolder(root=str(blobs.cache)))
        return cls(read_token_layers(row), ShardValues(ranges, sha256), layout)

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
        return int(self.table.num_tokens[0])


def read_windows(
    models: Sequence[ModelTokens], spans: Iterable[tuple[int, int]], *, window_size: int
) -> WindowBatch:
    """Read one window [start, stop) of each model; short ones are padded.

    Raises:
        IndexError: A window is empty, too long, or not within its model.
    """
    starts, stops = np.array(list(spans), dtype=np.int64).reshape(-1, 2).T
    for model, start, stop in zip(models, starts, stops, strict=True):
        if not 0 <= start < stop <= model.num_tokens or stop - start > window_size:
            raise IndexError(
                f"the model has {model.num_tokens} tokens, not [{start}, {stop}); "
                f"a window has 1 to {window_size}"
            )
    # Windows of one model share its layers.
    distinct = {id(model): model for model in models}
    order = {key: place for place, key in enumerate(distinct)}
    table = LayerTable.join([model.table for model in distinct.values()])
    rows = np.array([order[id(model)] for model in models])
    (plan,) = plan_batches(
        table,
        WindowSpans(models=rows, starts=starts, stops=stops),
        window_size=window_size,
        batch_size=len(models),
    )
    values = [model.values for model in distinct.values()]
    batch = plan.begin()
    read_values(batch, plan.reads, [values[row] for row in plan.reads.models.tolist()])
    return batch


class WindowDataset:
    """Random windows over a corpus, map-style over steps.

    The windows of a step are a function of (seed, step); process r of n reads the r-th of n equal,
    consecutive parts. See ``draws`` for how likely each token is.

    Memory: the layer table (`LayerTable`), plans of twice `PLANNED_TOKENS`, and one batch. Disk,
    for a remote store: ``cache_bytes``. Only the bytes of the windows are read, in blocks.

    Args:
        store: Where the shards are.
        rows: Corpus rows: ``shard_sha256``, ``layers``; and ``weight``, by which models are drawn
            (``mixture``).
        layout: How layers are cut.
        window_size: Tokens per window.
        batch_size: Windows per step of all processes together.
        num_steps: Steps there are.
        seed: Of the draws.
        rank: Which process this is.
        num_processes: How many there are; divides ``batch_size``.
        unit_orders: How each window is shown: the batch holds all windows in the first order, then
            the same places of the same models in the next. ``permuted`` needs the column
            ``manifest``; a model whose symmetry is not known is shown as it is stored.
        cache_bytes: Bound on the local cache of a remote store.
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
        unit_orders: Sequence[UnitOrder] = ("stored",),
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        if batch_size % num_processes or not 0 <= rank < num_processes:
            raise ConfigError(
                f"batch_size {batch_size} must be a multiple of num_processes {num_processes}, "
                f"and rank {rank} below it."
            )
        self.layout = layout
        self.window_size = window_size
        self.batch_size = batch_size
        self.share = batch_size // num_processes
        """Windows of this process in a step."""
        self.table = LayerTable.of_corpus(rows, layout)
        self.draws = WindowDraws(
            rows["weight"].to_numpy().astype(np.float64),
            self.table.num_tokens,
            window_size=window_size,
            seed=seed,
        )
        self._num_steps = num_steps
        self._first = rank * self.share
        self._ranges = open_ranges(store.blobs, cache_bytes=cache_bytes)
        self._values = [ShardValues(self._ranges, sha256) for sha256 in rows["shard_sha256"]]
        self._plans: dict[int, BatchPlan] = {}
        self._unit_orders = tuple(unit_orders)
        self._permuted: PermutedModels | None = None
        if "permuted" in self._unit_orders:
            self._permuted = PermutedModels(store, rows["manifest"].to_list(), seed=seed)
        self._prefetch = (
            None if isinstance(self._ranges, LocalRanges) else Prefetch(self._list_reads)
        )

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._num_steps

    def __getitem__(self, step: int) -> WindowBatch:
        """Return this process's windows of a step, in memory of their own."""
        return self.read(step)

    @property
    def num_windows(self) -> int:
        """Windows in a batch: this process's share, once in each order of the units."""
        return self.share * len(self._unit_orders)

    @property
    def max_batch_bytes(self) -> int:
        """What no batch exceeds, for a buffer that is used again."""
        return max_batch_bytes(
            window_size=self.window_size,
            batch_size=self.num_windows,
            token_size=self.layout.token_size,
        )

    def read(self, step: int, out: npt.NDArray[np.uint8] | None = None) -> WindowBatch:
        """Return this process's windows of a step.

        Args:
            step: Which step.
            out: Memory for the batch; fresh memory if None or too short.
        """
        if not 0 <= step < self._num_steps:
            raise IndexError(f"there are {self._num_steps} steps, not {step + 1}")
        if self._prefetch is not None:
            self._prefetch.reach(step, min(step + PREFETCH_STEPS, self._num_steps - 1))
        plan = self.plan(step)
        batch = plan.begin(out)
        read_values(batch, plan.reads, self._list_values(step, plan.reads))
        return batch

    def close(self) -> None:
        """Stop fetching ahead and give the cache's disk back."""
        if self._prefetch is not None:
            self._prefetch.close()
        self._ranges.close()

    def plan(self, step: int) -> BatchPlan:
        """Return what a step reads; steps are planned many at a time, and the last are kept."""
        plan = self._plans.get(step)
        if plan is None:
            count = PLANNED_TOKENS // (self.window_size * self.num_windows)
            count = min(max(count, 1), PLANNED_STEPS)
            first = step - step % count
            self._plans = {
                each: old for each, old in self._plans.items() if first - count <= each < first
            } | dict(zip(range(first, first + count), self._plan_steps(first, count), strict=True))
            plan = self._plans[step]
        return plan

    def spans(self, step: int, count: int = 1) -> WindowSpans:
        """Return this process's windows of ``count`` steps, from ``step`` on."""
        drawn = self.draws.draw(step * self.batch_size, count * self.batch_size)

        def mine(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            share = values.reshape(count, -1)[:, self._first : self._first + self.share]
            return share.reshape(-1)

        return WindowSpans(
            models=mine(drawn.models), starts=mine(drawn.starts), stops=mine(drawn.stops)
        )

    def _plan_steps(self, first: int, count: int) -> list[BatchPlan]:
        spans, orders = self.spans(first, count), len(self._unit_orders)

        def again(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            return np.tile(values.reshape(count, 1, -1), (1, orders, 1)).reshape(-1)

        return plan_batches(
            self.table,
            WindowSpans(
                models=again(spans.models), starts=again(spans.starts), stops=again(spans.stops)
            ),
            window_size=self.window_size,
            batch_size=self.num_windows,
        )

    def _list_values(self, step: int, reads: Reads) -> list[ModelValues]:
        """Return where each read of a step reads from."""
        models, stored = reads.models.tolist(), self._values
        if self._permuted is None:
            return [stored[model] for model in models]
        first = step * self.batch_size + self._first
        found: list[ModelValues] = []
        for model, window in zip(models, reads.windows.tolist(), strict=True):
            values: ModelValues = stored[model]
            if self._unit_orders[window // self.share] == "permuted":
                values = self._permuted.view(values, model, first + window % self.share)
            found.append(values)
        return found

    def _list_reads(self, step: int) -> Iterator[tuple[ShardValues, int, int, int]]:
        """Yield (values of the model, dtype, first value, number of values) of a step."""
        reads = self.plan(step).reads
        columns = (reads.models, reads.dtypes, reads.starts, reads.counts)
        served = zip(
            self._list_values(step, reads), *(column.tolist() for column in columns), strict=True
        )
        for values, model, dtype, start, count in served:
            stored = self._values[model]
            if isinstance(values, PermutedValues):
                for part in values.list_stored(dtype, start, count):
                    yield stored, dtype, *part
            else:
                yield stored, dtype, start, count
