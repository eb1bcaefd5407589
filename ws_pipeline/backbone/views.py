"""Views of a batch of windows: what the encoder sees instead of the clean tokens. No I/O.

Two kinds of change. :func:`augment_windows` makes new clean windows, input and target alike, where
a corpus is small. :func:`make_views` makes the encoder's inputs; the target of the reconstruction
stays the clean batch. Randomness is an argument: one generator, seeded by (seed, step, rank), so a
step's views are the same whenever it is run.

Source: METHOD 4; the multiplicative noise is the hub paper's (arXiv 2510.02096).
"""

import numpy as np
import torch

from ws_pipeline.backbone.config import LossConfig, ViewConfig
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.backbone.normalization import denormalize, normalize


def augment_windows(clean: Windows, views: ViewConfig, *, generator: torch.Generator) -> Windows:
    """Return new clean windows: some mixed with others of the batch, some with all signs flipped.

    A mixture is ``cos(t) x + sin(t) y`` in units of the layer, with t uniform in a quarter turn, so
    that its scale stays. It keeps mask, positions and scale of x. Weights are close to white: what
    a small network can learn of them are covariances, which mixtures keep, and on a corpus of a few
    million weights it would learn the corpus by heart instead. Measured on 180 models with 2.2 M
    weights, 0.4 M parameters, 300 steps: held-out error 0.519 without, 0.489 with (0.505 before
    training).
    """
    if views.mixtures == 0.0 and not views.flip_signs:
        return clean
    batch, device = len(clean.tokens), clean.tokens.device
    scaled = normalize(clean.tokens, clean.mask, clean.scale, "layer")
    draws = torch.rand((3, batch), generator=generator, device=device)
    partner = torch.randperm(batch, generator=generator, device=device)
    angle = draws[0] * (torch.pi / 2) * (draws[1] < views.mixtures)
    sign = torch.where(draws[2] < 0.5, -1.0, 1.0) if views.flip_signs else draws.new_ones(batch)
    own, other = (sign * angle.cos())[:, None, None], (sign * angle.sin())[:, None, None]
    tokens = own * scaled.tokens + other * scaled.tokens[partner]
    return clean._replace(tokens=denormalize(scaled._replace(tokens=tokens), clean.mask))


def make_views(
    clean: Windows, views: ViewConfig, loss: LossConfig, *, generator: torch.Generator
) -> Windows:
    """Return the encoder's inputs for one step, view after view along the batch axis.

    With a contrastive term: the original and a noisy view, as in the hub paper. Without: the noisy
    view alone, since a second pass would only teach what the first one does.
    """
    noisy = hide_tokens(add_noise(clean, views.noise, generator), views.hidden_tokens, generator)
    if loss.contrastive_weight == 0.0:
        return noisy
    return Windows(*(torch.cat(parts) for parts in zip(clean, noisy, strict=True)))


def add_noise(clean: Windows, noise: float, generator: torch.Generator) -> Windows:
    """Multiply every weight by ``1 + noise * eps``, eps standard normal from the batch's device."""
    if noise == 0.0:
        return clean
    eps = torch.randn(clean.tokens.shape, generator=generator, device=clean.tokens.device)
    return clean._replace(tokens=clean.tokens * (1.0 + noise * eps))


def hide_tokens(clean: Windows, share: float, generator: torch.Generator) -> Windows:
    """Set the weights of a share of tokens to their layer's mean; zero once normalised by layer."""
    if share == 0.0:
        return clean
    shape = clean.tokens.shape[:2]
    hidden = torch.rand(shape, generator=generator, device=clean.tokens.device) < share
    blank = clean.scale[..., :1].expand_as(clean.tokens) * clean.mask
    return clean._replace(tokens=torch.where(hidden[..., None], blank, clean.tokens))


def step_generator(
    seed: int, step: int, rank: int, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return the generator of one step on one process: a pure function of its arguments.

    The three are mixed into 32 bits first: torch's CPU generator ignores the upper half of a seed.
    """
    state = np.random.SeedSequence((seed, step, rank)).generate_state(1)
    return torch.Generator(device=device).manual_seed(int(state[0]))
