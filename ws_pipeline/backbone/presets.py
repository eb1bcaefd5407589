"""Sets of values that belong together. No torch, no I/O.

A preset is a backbone with a training that suits it; a recipe takes one and adds what it is
trained on. Costs are stated with the hardware that they were measured on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ws_pipeline.backbone.config import BackboneConfig, LossConfig, TrainingConfig, ViewConfig
from ws_pipeline.tokens.layout import TokenLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A network, what it minimises, what it sees, and the optimiser's path.

    `description` is one sentence for people, with the expected cost; recipes show it.
    """

    description: str
    layout: TokenLayout
    backbone: BackboneConfig
    loss: LossConfig
    views: ViewConfig
    training: TrainingConfig


def tiny() -> Preset:
    """0.4 M parameters for demos and tests, sized for a corpus of a few million weights.

    Rows are cut apart: a latent keeps about the share of a token's weights that it has numbers for,
    since weights are close to white, and small layers have rows shorter than a token. Measured on
    733 models of 43 families, median relative error over the layers of held-out lineages, three
    seeds at full length: 0.014 [0.005, 0.025], with 1.35 latent numbers per weight; the papers'
    choices with as many parameters and steps 0.520 [0.469, 0.546], with 0.53 (dense tokens). At
    0.53 numbers per weight ours has 0.45; large layers cost what dense tokens cost.

    With dense tokens on five families, more parameters learn the corpus by heart: 0.4 M with
    mixtures 0.473, without 0.519; 0.8 M with them 0.495; 1.8 M without 0.563. 82 CPU-seconds for
    800 steps on a Zen 4 core in bf16.
    """
    return Preset(
        description="Demo and tests: 0.4 M parameters, one to two minutes on two CPU cores.",
        layout=TokenLayout(kind="sliced", token_size=64),
        backbone=BackboneConfig(
            layout="sliced",
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


def generation() -> Preset:
    """`tiny` with dense tokens and a latent as large as one: what new weights are decoded from.

    Weights are close to white, so a smaller latent loses function with them (docs/experiments.md).
    Measured: 92 CPU-seconds of training on the demo's corpus.
    """
    preset = tiny()
    return replace(
        preset,
        layout=replace(preset.layout, kind="dense"),
        description="New weights of small models: 0.4 M parameters, no bottleneck, two minutes.",
        backbone=replace(preset.backbone, layout="dense", latent_size=64),
    )


def permuted() -> Preset:
    """`tiny` that sees models in two orders of their hidden units, with NT-Xent on pooled latents.

    The embedding then says more of what a network does and less of how its units stand: accuracy is
    read from it with R^2 0.48 in place of 0.40, the generalisation gap with 0.18 in place of 0.03,
    s(W) has 0.41 and 0.14. The price is 1.8 times the training and an error of held-out weights of
    0.013 in place of 0.005. At 300 steps, two seeds, 542 models of five families; a permuted parent
    is hardly found sooner (docs/experiments.md, 2026-11-29).
    """
    preset = tiny()
    return replace(
        preset,
        description="Embeddings of small models: 0.4 M parameters, permuted views, four minutes.",
        backbone=replace(preset.backbone, projection_size=32),
        loss=replace(preset.loss, contrastive_weight=0.05),
        views=replace(preset.views, permutation=True),
    )


def small() -> Preset:
    """21 M parameters: a zoo of some 10^8 weights, one GPU for minutes or a CPU for a day.

    Expected cost, by arithmetic and not yet measured: 20,000 steps of 8,192 tokens at 0.13 GFLOP
    are 2.1e16 FLOP, two minutes of an H100 at 200 TFLOP/s or a day of two Zen 4 cores at 250
    GFLOP/s.
    """
    return Preset(
        description="21 M parameters for a zoo of some 10^8 weights: minutes on a GPU.",
        layout=TokenLayout(token_size=128),
        backbone=BackboneConfig(
            token_size=128,
            width=384,
            num_layers=6,
            num_heads=6,
            latent_size=64,
            projection_size=64,
        ),
        loss=LossConfig(contrastive_weight=0.0),
        views=ViewConfig(noise=0.1, mixtures=0.5, flip_signs=True),
        training=TrainingConfig(
            num_steps=20_000,
            batch_size=64,
            window_size=128,
            learning_rate=1e-3,
            log_every=50,
            evaluate_every=500,
            checkpoint_every=500,
        ),
    )


def sane_cnn() -> Preset:
    """SANE's CNN backbone, 203 M parameters (arXiv 2406.09997): d 1024, 8 + 8 layers, latent 128.

    Sliced tokens of 289 (one row of a 32-channel 3x3 convolution with its bias), learned positions,
    NT-Xent at 0.05. What SANE takes from its whole zoo, mean and variance of each layer, is taken
    from the model's own layer here. Expected cost, by arithmetic: 50,000 steps of 2 views of 2,048
    tokens at 1.2 GFLOP are 2.5e17 FLOP, 20 minutes of an H100 at 200 TFLOP/s.
    """
    return _sane(
        description="SANE's backbone for small CNNs: 203 M parameters, under an hour on a GPU.",
        width=1024,
        num_heads=8,
        window_size=64,
        max_positions=256,
    )


def sane_resnet18() -> Preset:
    """SANE's ResNet-18 backbone: d 2048, 8 + 8 layers, 16 heads, window 256; 1.02 G parameters.

    806 M of them are transformer and 212 M the position tables, which a ResNet-18 of 51,000
    sliced tokens needs. Expected cost, by arithmetic: 50,000 steps of 2 views of 8,192 tokens at 5
    GFLOP are 4e18 FLOP, 6 hours of an H100 at 200 TFLOP/s.
    """
    return _sane(
        description="SANE's backbone for ResNet-18: 1.02 G parameters, hours on one 80 GB GPU.",
        width=2048,
        num_heads=16,
        window_size=256,
        max_positions=51_200,
    )


def hub_small() -> Preset:
    """The hub paper's Small backbone, 456 M parameters (arXiv 2510.02096), with our codes.

    Expected cost, by arithmetic: 200,000 steps of 2 views of 16,384 tokens at 2.8 GFLOP are 1.8e19
    FLOP, a day of an H100 at 200 TFLOP/s.
    """
    return _hub(
        description="The hub paper's Small backbone: 456 M parameters, a day on one 80 GB GPU.",
        width=1536,
        num_layers=8,
        num_heads=16,
    )


def hub_large() -> Preset:
    """Of the hub paper's Large size, 908 M parameters; weights and optimiser state are sharded.

    5.5 GFLOP for a token and a view. Its state takes 14.5 GB in float32, gradients included,
    divided by the number of processes. The paper does not state the shape. Expected cost, by
    arithmetic: 3.6e19 FLOP are 25 hours of two H100 at 200 TFLOP/s each.
    """
    preset = _hub(
        description="The hub paper's Large size: 908 M parameters, a day on two GPUs.",
        width=2048,
        num_layers=9,
        num_heads=16,
    )
    return replace(preset, training=replace(preset.training, sharding="fsdp2", compile=True))


def _hub(*, description: str, width: int, num_layers: int, num_heads: int) -> Preset:
    """What the sizes of the hub paper have in common."""
    return Preset(
        description=description,
        layout=TokenLayout(token_size=230),
        backbone=BackboneConfig(
            token_size=230,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
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


def _sane(
    *, description: str, width: int, num_heads: int, window_size: int, max_positions: int
) -> Preset:
    """What SANE's two configurations have in common."""
    return Preset(
        description=description,
        layout=TokenLayout(kind="sliced", token_size=289),
        backbone=BackboneConfig(
            token_size=289,
            width=width,
            num_layers=8,
            num_heads=num_heads,
            latent_size=128,
            projection_size=128,
            position_code="learned",
            layout="sliced",
            use_scale=False,
            max_positions=max_positions,
        ),
        loss=LossConfig(contrastive_weight=0.05, scale_weight=0.0),
        views=ViewConfig(noise=0.1, permutation=True),
        training=TrainingConfig(
            num_steps=50_000,
            batch_size=32,
            window_size=window_size,
            learning_rate=1e-4,
            log_every=50,
            evaluate_every=1_000,
            checkpoint_every=1_000,
        ),
    )


PRESETS: Mapping[str, Callable[[], Preset]] = MappingProxyType(
    {
        "tiny": tiny,
        "generation": generation,
        "small": small,
        "permuted": permuted,
        "sane-cnn": sane_cnn,
        "sane-resnet18": sane_resnet18,
        "hub-small": hub_small,
        "hub-large": hub_large,
    }
)
