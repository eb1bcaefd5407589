"""What every model of a stack sees: its own subset, label noise and data order.

All randomness comes from streams named by the model's id and a purpose, so a model's data does not
depend on who trains beside it, nor on where training was interrupted. Torch; no I/O.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ws_pipeline.zoo.augmentation import Augmentation
from ws_pipeline.zoo.datasets.dataset import Dataset, LabelledDataset, TextDataset
from ws_pipeline.zoo.datasets.digits import SPLIT_SEED
from ws_pipeline.zoo.grid import ModelPlan

IGNORED_LABEL = -100
"""Marks a place without a label; the value that ``cross_entropy`` skips."""
EPOCH_WINDOWS = 1_024
"""Windows of text that make one epoch, drawn anew each time."""
NUM_TRAIN_EVAL_ROWS = 512
NUM_TRAIN_EVAL_WINDOWS = 64
NUM_TEST_WINDOWS = 128
MAX_EVAL_VALUES = 4 * 1024**2
"""Most input values of one evaluation step, all models together. A CNN's activations are some ten
times its inputs: 64 models then stay below 200 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Inputs ``(models, batch, ...)`` and labels ``(models, batch, ...)``, some of them ignored."""

    inputs: Tensor
    labels: Tensor


def make_generator(model_id: str, purpose: str) -> torch.Generator:
    """Open the random stream of one model for one purpose."""
    digest = hashlib.sha256(f"{model_id}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def make_seed(model_id: str, purpose: str) -> int:
    """Draw one seed from a model's stream."""
    return make_generator(model_id, purpose).initial_seed()


def _number(plan: ModelPlan, factor: str) -> float:
    return float(plan.factors[factor])


def _add_label_noise(labels: Tensor, num_labels: int, plans: Sequence[ModelPlan]) -> Tensor:
    """Give every model its own copy of the labels, some replaced: ``(models, labels)``."""
    noisy = labels.expand(len(plans), -1).clone()
    for row, plan in zip(noisy, plans, strict=True):
        share = _number(plan, "label_noise")
        if share > 0:
            generator = make_generator(plan.model_id, "label-noise")
            hit = torch.rand(len(row), generator=generator) < share
            other = torch.randint(num_labels, row.shape, generator=generator, dtype=row.dtype)
            row.copy_(torch.where(hit, other, row))
    return noisy


def scale_inputs(inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Images take the training's dtype, bytes in [0, 1]; character ids stay integers."""
    if inputs.dtype == torch.uint8:
        return inputs.to(dtype) / 255
    return inputs.to(dtype) if inputs.is_floating_point() else inputs


class LabelledBatches:
    """Batches of a stack of classifiers, of images or of windows of text."""

    def __init__(self, dataset: LabelledDataset, plans: Sequence[ModelPlan], dtype: torch.dtype):
        self._plans = plans
        self._is_text = dataset.is_text
        self._inputs = torch.from_numpy(dataset.train_inputs)
        self._labels = _add_label_noise(
            torch.from_numpy(dataset.train_labels), dataset.num_labels, plans
        )
        self._held_out = {
            "val": (dataset.val_inputs, dataset.val_labels),
            "test": (dataset.test_inputs, dataset.test_labels),
        }
        self._dtype = dtype
        num_rows = len(self._inputs)
        self._subsets = [
            torch.randperm(num_rows, generator=make_generator(plan.model_id, "subset"))[
                : max(1, round(_number(plan, "train_fraction") * num_rows))
            ]
            for plan in plans
        ]
        self._batch_size = plans[0].batch_size
        self.num_steps = (plans[0].rows_per_epoch or num_rows) // self._batch_size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        An epoch is as many steps for everyone: one pass over the full training set, or several
        over a smaller subset.
        """
        needed = self.num_steps * self._batch_size
        orders = []
        for plan, subset in zip(self._plans, self._subsets, strict=True):
            generator = make_generator(plan.model_id, f"order/{epoch}")
            passes = -(-needed // len(subset))
            rounds = [torch.randperm(len(subset), generator=generator) for _ in range(passes)]
            orders.append(subset[torch.cat(rounds)[:needed]])
        drawn = [make_generator(plan.model_id, f"augment/{epoch}") for plan in self._plans]
        augmentation = Augmentation(self._plans, drawn, is_text=self._is_text)
        for rows in torch.split(torch.stack(orders), self._batch_size, dim=1):
            inputs = augmentation.apply(self._take(rows))
            yield Batch(inputs=inputs, labels=self._labels.gather(1, rows))

    def _take(self, rows: Tensor) -> Tensor:
        return scale_inputs(self._inputs[rows], self._dtype)

    def train_sample(self, num_rows: int = NUM_TRAIN_EVAL_ROWS) -> list[Batch]:
        """Take the start of every model's own training subset, with the labels it was given."""
        size = min(num_rows, max(len(subset) for subset in self._subsets))
        rows = torch.stack(
            [subset.repeat(-(-size // len(subset)))[:size] for subset in self._subsets]
        )
        labels = self._labels.gather(1, rows)
        for own, subset in zip(labels, self._subsets, strict=True):
            own[len(subset) :] = IGNORED_LABEL
        size = self._eval_rows
        pairs = zip(torch.split(rows, size, dim=1), torch.split(labels, size, dim=1), strict=True)
        return [Batch(inputs=self._take(part), labels=own) for part, own in pairs]

    def held_out(self, split: str) -> list[Batch]:
        """Take a held-out split, the same for every model, in parts of bounded size."""
        inputs, labels = map(torch.from_numpy, self._held_out[split])
        limit = self._plans[0].eval_rows
        if 0 < limit < len(labels):
            drawn = torch.Generator().manual_seed(SPLIT_SEED)
            rows = torch.randperm(len(labels), generator=drawn)[:limit]
            inputs, labels = inputs[rows], labels[rows]
        count, size = len(self._plans), self._eval_rows
        pairs = zip(torch.split(inputs, size), torch.split(labels, size), strict=True)
        return [
            Batch(
                inputs=scale_inputs(part, self._dtype).expand(count, *part.shape),
                labels=own.expand(count, -1),
            )
            for part, own in pairs
        ]

    @property
    def _eval_rows(self) -> int:
        num_values = len(self._plans) * self._inputs[0].numel()
        return max(1, MAX_EVAL_VALUES // num_values)


class TextBatches:
    """Batches of a stack of models that predict the next character."""

    def __init__(self, dataset: TextDataset, plans: Sequence[ModelPlan]):
        self._plans = plans
        self._context = int(plans[0].sizes["context"])  # type: ignore[arg-type]
        self._text = torch.from_numpy(dataset.train)
        self._targets = _add_label_noise(self._text, dataset.vocab_size, plans)
        self._held_out = {"val": dataset.val, "test": dataset.test}
        self._batch_size = plans[0].batch_size
        self.num_steps = (plans[0].rows_per_epoch or EPOCH_WINDOWS) // self._batch_size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch: windows at random places of the model's own share."""
        for index in range(self.num_steps):
            yield self._draw(f"order/{epoch}/{index}", self._batch_size)

    def train_sample(self) -> list[Batch]:
        """Draw windows from every model's own share of the text, with the labels it was given."""
        return [self._draw("train-sample", NUM_TRAIN_EVAL_WINDOWS)]

    def held_out(self, split: str) -> list[Batch]:
        """Cut a held-out text into consecutive windows, the same for every model."""
        text = torch.from_numpy(self._held_out[split])
        count = min(NUM_TEST_WINDOWS, (len(text) - 1) // self._context)
        places = torch.arange(count)[:, None] * self._context + torch.arange(self._context)
        stack = (len(self._plans), -1, -1)
        return [Batch(inputs=text[places].expand(stack), labels=text[places + 1].expand(stack))]

    def _draw(self, purpose: str, count: int) -> Batch:
        starts = []
        for plan in self._plans:
            share = round(_number(plan, "train_fraction") * len(self._text))
            generator = make_generator(plan.model_id, purpose)
            last = max(1, share - self._context)
            starts.append(torch.randint(last, (count, 1), generator=generator))
        places = torch.stack(starts) + torch.arange(self._context)  # (models, batch, context)
        labels = self._targets.gather(1, places.flatten(1) + 1).view(places.shape)
        return Batch(inputs=self._text[places], labels=labels)


def make_batches(
    dataset: Dataset, plans: Sequence[ModelPlan], dtype: torch.dtype
) -> LabelledBatches | TextBatches:
    """Make the batches of a stack; all plans share the data set, batch size and context."""
    if isinstance(dataset, LabelledDataset):
        return LabelledBatches(dataset, plans, dtype)
    return TextBatches(dataset, plans)
