"""The test rows that a zoo's recorded predictions are about, with their labels. Torch; no I/O."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ws_pipeline.zoo.batches import NUM_TEST_WINDOWS, scale_inputs
from ws_pipeline.zoo.datasets.dataset import Dataset, TextDataset
from ws_pipeline.zoo.datasets.digits import SPLIT_SEED


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Test rows: images ``(rows, ...)`` in [0, 1] or ids, labels ``(rows, ...)``."""

    inputs: Tensor
    labels: Tensor


def take_test_rows(dataset: Dataset, *, num_predictions: int, context: int = 0) -> HeldOut | None:
    """Take the test rows of which a model has so many recorded predictions.

    Args:
        dataset: The data set.
        num_predictions: All of the test set, or as many as the population's ``eval_rows``.
        context: Window of a model of running text.

    Returns:
        None when the data set has not that many: it changed since, or labels were left out.
    """
    if isinstance(dataset, TextDataset):
        text = torch.from_numpy(dataset.test)
        count = min(NUM_TEST_WINDOWS, (len(text) - 1) // max(1, context))
        if not context or count * context != num_predictions:
            return None
        places = torch.arange(count)[:, None] * context + torch.arange(context)
        return HeldOut(inputs=text[places], labels=text[places + 1])
    inputs = torch.from_numpy(dataset.test_inputs)
    labels = torch.from_numpy(dataset.test_labels)
    if num_predictions > len(labels):
        return None
    if num_predictions < len(labels):
        drawn = torch.Generator().manual_seed(SPLIT_SEED)  # as LabelledBatches draws them
        rows = torch.randperm(len(labels), generator=drawn)[:num_predictions]
        inputs, labels = inputs[rows], labels[rows]
    return HeldOut(inputs=scale_inputs(inputs, torch.float32), labels=labels)
