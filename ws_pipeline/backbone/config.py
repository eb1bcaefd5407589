"""What a backbone is and how it is trained, as frozen values. No torch, no I/O.

Belongs here: every number that decides what weights come out of a training. Does not: where a run
reads and writes (``job``), named sets of values (``presets``).
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Literal, TypeVar, get_args

from ws_pipeline.arrays import NUM_POSITION_COORDINATES
from ws_pipeline.errors import ConfigError

Normalization = Literal["none", "batch", "window", "token", "layer"]
"""Over what the mean and the standard deviation are taken that a token is normalised by."""

PositionCode = Literal["learned", "summed", "banded"]
"""Tables as in SANE, summed sinusoids as in the hub paper, separate bands per coordinate (ours)."""

Layout = Literal["dense", "sliced"]
"""How a layer is cut into tokens; see ``tokens.layout``."""

Initialization = Literal["projection", "uniform"]
"""A fresh network that projects tokens orthogonally (ours), or torch's own uniform draws."""

Precision = Literal["auto", "fp32", "bf16"]
"""``auto`` takes bf16 where the device has the instructions."""

EMBEDDING_VERSION = "3"
"""Raise it when the same backbone would give another vector: stored ones are then made again."""

Schedule = Literal["one_cycle", "cosine"]
"""How the learning rate goes over the steps; see ``optimizer``."""

Sharding = Literal["none", "fsdp2"]
"""Whether each process holds all weights and optimiser state, or its share of them."""

MAX_TOKEN_SIZE = 65_536
MAX_WIDTH = 16_384
MAX_LAYERS = 128
MAX_WINDOW = 65_536
MAX_BATCH = 65_536
MAX_STEPS = 100_000_000
MAX_TABLE_ROWS = 10_000_000
"""A learned table of this many positions is 60 GB at width 1536: a typing error, not a model."""

MAX_SEED = 2**31 - 1

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """The network; everything that is needed to go from true weights to latents and back.

    Attributes:
        token_size: Weights in one token.
        width: Hidden size; a multiple of `num_heads`, and even.
        num_layers: Transformer blocks of the encoder, and again of the decoder.
        num_heads: Attention heads.
        latent_size: Numbers in one token's latent.
        projection_size: Outputs of the contrastive projection head; 0 leaves the head out.
        position_code: How (token in model, layer, token in layer) enters.
        normalization: What the encoder sees tokens normalised by; the paper's is `none`.
        layout: The token layout that the backbone is trained on.
        use_scale: Whether the encoder sees what the normalisation removed, and gives it back.
        initialization: What a fresh network is; `uniform` is what the papers' code gets from torch.
        max_positions: Rows of the tables of the `learned` code; unused by the others.
        window_size: Tokens of the windows that it was trained on; the trainer fills it in, so that
            a saved backbone knows. 0 before training.
    """

    token_size: int = 64
    width: int = 128
    num_layers: int = 2
    num_heads: int = 4
    latent_size: int = 32
    projection_size: int = 32
    position_code: PositionCode = "banded"
    normalization: Normalization = "layer"
    layout: Layout = "dense"
    use_scale: bool = True
    initialization: Initialization = "projection"
    max_positions: int = 16_384
    window_size: int = 0

    def __post_init__(self) -> None:
        """Check bounds.

        Raises:
            ConfigError: With the field, its bound and the value that came.
        """
        check_range(self, "token_size", 1, MAX_TOKEN_SIZE)
        check_range(self, "width", 2 * NUM_POSITION_COORDINATES, MAX_WIDTH)
        check_range(self, "num_layers", 0, MAX_LAYERS)
        check_range(self, "num_heads", 1, self.width)
        check_range(self, "latent_size", 1, MAX_WIDTH)
        check_range(self, "projection_size", 0, MAX_WIDTH)
        check_range(self, "max_positions", 1, MAX_TABLE_ROWS)
        check_range(self, "window_size", 0, MAX_WINDOW)
        check_choice(self, "position_code", get_args(PositionCode))
        check_choice(self, "normalization", get_args(Normalization))
        check_choice(self, "layout", get_args(Layout))
        check_choice(self, "initialization", get_args(Initialization))
        if self.width % (2 * self.num_heads):
            raise ConfigError(
                "BackboneConfig: width must be a multiple of 2 * num_heads = "
                f"{2 * self.num_heads}, got {self.width}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """What is minimised: ``(1 - g) * reconstruction + g * contrastive + s * scale``.

    Attributes:
        normalization: The unit that errors are measured in; `batch` is the papers' masked loss
            normalisation, `layer` makes quiet layers count as much as loud ones.
        contrastive_weight: g. 0.05 in SANE and the multi-zoo study, 0 in the lab's latest code.
        temperature: Of NT-Xent.
        scale_weight: s, weight of giving back the layer's (mean, log std).
    """

    normalization: Normalization = "layer"
    contrastive_weight: float = 0.0
    temperature: float = 0.1
    scale_weight: float = 0.1

    def __post_init__(self) -> None:
        """Check bounds; ConfigError names the field, its bound and the value."""
        check_choice(self, "normalization", get_args(Normalization))
        check_range(self, "contrastive_weight", 0.0, 1.0)
        check_range(self, "temperature", 1e-4, 1e4)
        check_range(self, "scale_weight", 0.0, 1e3)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig:
    """What the encoder sees, and what more there is to see than the corpus holds.

    Noise and hidden tokens change the encoder's input only; the clean tokens stay the target.
    Mixtures and flips make new clean windows: they change input and target alike.

    Attributes:
        noise: Standard deviation of the multiplicative noise ``x * (1 + noise * eps)``.
        hidden_tokens: Share of tokens whose weights the encoder does not see.
        mixtures: Share of windows that are mixed with another window of the batch.
        flip_signs: Whether windows are multiplied by -1 half of the time.
        permutation: Whether models are seen with their hidden units in a random order, where the
            architecture's symmetry is known: as the second view beside the model as it is stored
            with a contrastive term, always without. The permuted window is its own target.
    """

    noise: float = 0.1
    hidden_tokens: float = 0.0
    mixtures: float = 0.0
    flip_signs: bool = False
    permutation: bool = False

    def __post_init__(self) -> None:
        """Check bounds; ConfigError names the field, its bound and the value."""
        check_range(self, "noise", 0.0, 10.0)
        check_range(self, "hidden_tokens", 0.0, 0.95)
        check_range(self, "mixtures", 0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The optimiser's path.

    Attributes:
        num_steps: Optimiser steps.
        batch_size: Windows in one step, over all processes together.
        window_size: Tokens in one window.
        accumulation: Parts that a process cuts its share of a step into, for memory's sake. The
            step is the same to rounding, but that the contrastive term's negatives and a
            normalisation by batch see one part at a time.
        learning_rate: Peak of the schedule.
        schedule: Its shape.
        warmup_fraction: Share of the steps that rise to the peak (`pct_start`).
        weight_decay: Of AdamW, on matrices only.
        betas: Of AdamW.
        grad_clip: Largest gradient norm; without it the loss spikes near the peak.
        seed: Of initial weights, windows and views.
        precision: Of matrix products; weights and optimiser state are float32 in any case.
        compile: Whether `torch.compile` makes kernels of the blocks; needs a C++ compiler on a CPU.
        sharding: `fsdp2` for a model whose optimiser state does not fit beside its activations.
        log_every: Steps between metric points.
        evaluate_every: Steps between evaluations on the validation split.
        num_validation_batches: Batches of one such evaluation.
        patience: Evaluations in a row without a better loss that end the training; 0 is never.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: Complete checkpoints that are kept.
    """

    num_steps: int = 1_000
    batch_size: int = 32
    window_size: int = 64
    accumulation: int = 1
    learning_rate: float = 1e-3
    schedule: Schedule = "one_cycle"
    warmup_fraction: float = 0.3
    weight_decay: float = 3e-9
    betas: tuple[float, float] = (0.9, 0.999)
    grad_clip: float = 1.0
    seed: int = 0
    precision: Precision = "auto"
    compile: bool = False
    sharding: Sharding = "none"
    log_every: int = 10
    evaluate_every: int = 100
    num_validation_batches: int = 4
    patience: int = 0
    checkpoint_every: int = 200
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        """Check bounds; ConfigError names the field, its bound and the value."""
        check_range(self, "num_steps", 1, MAX_STEPS)
        check_range(self, "batch_size", 1, MAX_BATCH)
        check_range(self, "accumulation", 1, self.batch_size)
        check_range(self, "window_size", 1, MAX_WINDOW)
        check_range(self, "learning_rate", 0.0, 10.0)
        check_range(self, "warmup_fraction", 0.0, 1.0)
        check_range(self, "weight_decay", 0.0, 10.0)
        check_range(self, "grad_clip", 1e-6, 1e9)
        check_range(self, "seed", 0, MAX_SEED)
        check_range(self, "patience", 0, MAX_STEPS)
        check_choice(self, "precision", get_args(Precision))
        check_choice(self, "schedule", get_args(Schedule))
        check_choice(self, "sharding", get_args(Sharding))
        for name in ("log_every", "evaluate_every", "checkpoint_every"):
            check_range(self, name, 1, MAX_STEPS)
        check_range(self, "num_validation_batches", 1, MAX_BATCH)
        check_range(self, "keep_checkpoints", 1, 1_000)
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigError(
                f"TrainingConfig: betas must be two numbers in [0, 1), got {self.betas!r}"
            )


def check_range(config: object, name: str, low: int | float, high: int | float) -> None:
    """Refuse a number outside ``[low, high]``; NaN is outside of everything."""
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(
            f"{type(config).__name__}: {name} must lie in [{low:g}, {high:g}], got {value!r}"
        )


def check_choice(config: object, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the choices."""
    value = getattr(config, name)
    if value not in choices:
        raise ConfigError(
            f"{type(config).__name__}: {name} must be one of {', '.join(choices)}, got {value!r}"
        )


def build(kind: type[ConfigT], values: object, *, tuples: tuple[str, ...] = ()) -> ConfigT:
    """Build a config from JSON values.

    Args:
        kind: The dataclass.
        values: Field values; a missing one takes its default.
        tuples: Fields that JSON holds as a list.

    Raises:
        ConfigError: On a name that the config does not have, or one that it needs and did not get.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{kind.__name__}: must be an object, got {values!r}")
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(
            f"{kind.__name__}: unknown field {unknown[0]!r}; "
            f"the fields are {', '.join(sorted(known))}"
        )
    missing = [
        name
        for name, each in known.items()
        if name not in values and each.default is MISSING and each.default_factory is MISSING
    ]
    if missing:
        raise ConfigError(f"{kind.__name__}: {missing[0]} must be given")
    return kind(**{k: tuple(v) if k in tuples else v for k, v in values.items()})
