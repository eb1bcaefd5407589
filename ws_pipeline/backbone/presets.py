"""Sets of values that belong together. No torch, no I/O.

A preset is a backbone with a training that suits it; a recipe takes one and adds what it is
trained on. Costs are stated with the hardware that they were measured on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ws_pipeline.backbone.config import BackboneConfig, LossConfig, TrainingConfig, ViewConfig
from ws_pipeline.tokens.layout import TokenLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A network, what it minimises, what it sees, and the optimiser's path."""

    layout: TokenLayout
    backbone: BackboneConfig
    loss: LossConfig
    views: ViewConfig
    training: TrainingConfig


def tiny() -> Preset:
    """0.4 M parameters for demos and tests, sized for a corpus of a few million weights.

    Measured on 180 training and 42 test models of five families (2.9 M weights in all), median over
    held-out layers of the relative error: 0.473; before training 0.505; the best linear code of the
    same size (32 principal components per token) 0.491. Weights are close to white, so a latent
    half as large as the token leaves about half of them; latent_size 48 gives 0.239.

    Without mixtures it is 0.519, and more parameters learn the corpus by heart: 1.8 M without
    mixtures 0.563, 0.8 M with them 0.495. 66 CPU-seconds for 800 steps on a Zen 4 core in bf16.
    """
    return Preset(
        layout=TokenLayout(token_size=64),
        backbone=BackboneConfig(
            token_size=64,
            width=128,
            num_layers=1,
            num_heads=2,
            latent_size=32,
            projection_size=0,
        ),
        loss=LossConfig(contrastive_weight=0.0),
        views=ViewConfig(noise=0.1, mixtures=1.0, flip_signs=True),
        training=TrainingConfig(
            num_steps=800,
            batch_size=32,
            window_size=64,
            learning_rate=4e-3,
            log_every=20,
            evaluate_every=100,
            checkpoint_every=200,
        ),
    )


def small() -> Preset:
    """The hub paper's Small backbone, 456 M parameters (arXiv 2510.02096). Needs a GPU."""
    return Preset(
        layout=TokenLayout(token_size=230),
        backbone=BackboneConfig(
            token_size=230,
            width=1536,
            num_layers=8,
            num_heads=16,
            latent_size=128,
            projection_size=128,
        ),
        loss=LossConfig(contrastive_weight=0.05),
        views=ViewConfig(noise=0.1),
        training=TrainingConfig(
            num_steps=200_000,
            batch_size=32,
            window_size=512,
            learning_rate=2e-5,
            log_every=50,
            evaluate_every=1_000,
            checkpoint_every=1_000,
        ),
    )


PRESETS: Mapping[str, Callable[[], Preset]] = MappingProxyType({"tiny": tiny, "small": small})
