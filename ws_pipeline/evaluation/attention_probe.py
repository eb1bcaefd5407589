"""A small attention-pooling probe: which layers matter is learned, not averaged. torch; no I/O.

A model is the set of its layers' vectors. Four queries attend over them, what they gather goes
through a linear readout; several thousand parameters at most. The epoch with the least validation
error counts; three initialisations are averaged, since one alone says much about its seed.

Source: pooling by multi-head attention, Lee et al., Set Transformer, arXiv 1810.00825, section 3.2,
without its feed-forward parts: populations are some hundred models.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.probes import BoolArray, Probe, standardize

FloatArray = NDArray[np.float64]

NUM_QUERIES = 4
WIDTH = 16
NUM_EPOCHS = 80
LEARNING_RATE = 8e-3
WEIGHT_DECAY = 0.1
DROPOUT = 0.2
NUM_MEMBERS = 3
MAX_LAYERS = 256
"""Layers of one model that are looked at, evenly spaced; a 1.3 B model has some hundred."""


class AttentionPool(nn.Module):
    """Layer vectors to one number.

    Args:
        num_features: Of a layer.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.embed = nn.Linear(num_features, WIDTH)
        self.drop = nn.Dropout(DROPOUT)
        self.queries = nn.Parameter(torch.randn(NUM_QUERIES, WIDTH) * WIDTH**-0.5)
        self.readout = nn.Linear(NUM_QUERIES * WIDTH, 1)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(self, layers: Tensor, real: Tensor) -> Tensor:
        """Return ``(models,)`` of layers ``(models, layers, features)``; ``real``: no padding."""
        x = torch.tanh(self.drop(self.embed(layers)))
        scores = torch.einsum("mlw,qw->mql", x, self.queries)
        shares = scores.masked_fill(~real[:, None], -torch.inf).softmax(dim=-1)
        pooled: Tensor = self.readout(torch.einsum("mql,mlw->mqw", shares, x).flatten(1))
        return pooled[:, 0]


def fit_attention_probe(
    layers: Sequence[FloatArray],
    truth: FloatArray,
    *,
    train: BoolArray,
    val: BoolArray,
    config: EvaluationConfig,
) -> Probe:
    """Fit the probe on training models and predict every model.

    Args:
        layers: Of each model ``(layers, features)``, at least one layer.
        truth: Targets, ``(models,)``, finite on train and val.
        train: Models to fit on.
        val: Models to choose the epoch on; with too few, the last one counts.
        config: Minimum counts and the seed.
    """
    tokens, real = _pad(layers, train)
    centre, spread = float(truth[train].mean()), max(float(truth[train].std()), 1e-12)
    target = torch.tensor((truth - centre) / spread, dtype=torch.float32)
    chooses = int(val.sum()) >= config.min_val_models
    members, epochs = [], []
    with torch.random.fork_rng(devices=[]):
        for member in range(NUM_MEMBERS):
            torch.manual_seed(config.seed * NUM_MEMBERS + member)
            curve = _fit(tokens, real, target, torch.from_numpy(train))
            errors = ((curve - target) ** 2)[:, torch.from_numpy(val)].mean(dim=1)
            best = int(errors.argmin()) if chooses else len(curve) - 1
            members.append(curve[best])
            epochs.append(best + 1)
    mean = torch.stack(members).mean(dim=0).double().numpy()
    return Probe(
        prediction=mean * spread + centre,
        regularization=float(np.mean(epochs)),
        num_features=tokens.shape[-1],
        chosen_on="val" if chooses else "last epoch",
    )


def _fit(tokens: Tensor, real: Tensor, target: Tensor, train: Tensor) -> Tensor:
    """Return predictions after every epoch, ``(epochs, models)``; one step is all models."""
    network = AttentionPool(tokens.shape[-1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    curve = []
    for _ in range(NUM_EPOCHS):
        network.train()
        loss = (network(tokens[train], real[train]) - target[train]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.eval()
        with torch.no_grad():
            curve.append(network(tokens, real))
    return torch.stack(curve)


def _pad(layers: Sequence[FloatArray], train: BoolArray) -> tuple[Tensor, Tensor]:
    """Return standardised layers ``(models, layers, features)`` and which are real."""
    chosen = [each[:: -(-len(each) // MAX_LAYERS)] for each in layers]
    sizes = np.array([len(each) for each in chosen])
    of_train = np.repeat(train, sizes)
    flat = standardize(np.concatenate(chosen), of_train)
    real = np.arange(sizes.max())[None, :] < sizes[:, None]
    padded = np.zeros((*real.shape, flat.shape[1]), dtype=np.float32)
    padded[real] = flat
    return torch.from_numpy(padded), torch.from_numpy(real)
