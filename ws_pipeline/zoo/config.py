"""What a zoo is: a frozen list of populations, each a grid of models. No torch, no I/O.

A population is one architecture on one data set under a grid of generating factors; a fine-tuning
stage is a population whose models start from another population's. Plans of single models are made
from this in ``grid``.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from ws_pipeline.errors import ConfigError

Scalar = str | int | float | bool
Size = Scalar | tuple[int, ...]

FORMAT_VERSION = 1
"""Part of every model's id. Raise it when the same config would give other weights or files."""

MAX_MODELS = 100_000
"""Most models of one zoo. The largest published zoo has 50,360 (NeurIPS 2022 model zoos)."""

ARCHITECTURE_SIZES: Mapping[str, Mapping[str, Size]] = {
    "mlp": {"hidden_sizes": (32, 32), "activation": "relu"},
    "cnn": {
        "channels": (8, 12, 16),
        "kernel_sizes": (3, 3, 3),
        "padding": 1,
        "pools": (1, 3),
        "hidden_size": 24,
        "activation": "relu",
        "batch_norm": True,
    },
    "resnet18": {"width": 16, "activation": "relu"},
    "vit": {
        "width": 32,
        "num_layers": 2,
        "num_heads": 2,
        "mlp_size": 64,
        "patch_size": 2,
        "head": "linear",  # or mlp: one hidden layer of mlp_size
    },
    "bert": {"width": 32, "num_layers": 2, "num_heads": 2, "mlp_size": 64, "context": 32},
    "gpt2": {"width": 32, "num_layers": 2, "num_heads": 2, "mlp_size": 64, "context": 32},
}
"""Every architecture's sizes and their defaults. A factor of the same name makes a size vary."""

TRAINING_FACTORS: Mapping[str, Scalar] = {
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "momentum": 0.9,  # sgd only
    "schedule": "constant",  # or cosine, to zero at the last step
    "label_noise": 0.0,  # share of the training labels replaced by uniformly drawn ones
    "label_smoothing": 0.0,
    "train_fraction": 1.0,  # share of the training set that the model ever sees
    "dropout": 0.0,  # after every hidden layer of an mlp or cnn
    "initialization": "default",  # of the weights of an mlp, cnn or resnet18
    "objective": "supervised",  # or contrastive: no labels, two views of the same image
    "temperature": 0.07,  # of the contrastive objective
    "mixup": 0.0,  # concentration of its share; 0 for none
    "cutmix": 0.0,
    "random_erasing": 0.0,  # share of the training images that lose a rectangle
    "flip": 0.0,  # share of the training images that are mirrored, drawn anew each time
    "shift": 0,  # most pixels that a training image moves, each way
    "noise": 0.0,  # standard deviation of normal noise on training images in [0, 1]
}
"""Every training factor and its default."""

ADDED_LATER = frozenset(
    {
        *("dropout", "initialization", "kernel_sizes", "padding", "pools"),
        *("head", "objective", "temperature", "mixup", "cutmix", "random_erasing"),
        *("flip", "shift", "noise"),
    }
)
"""Factors and sizes that are no part of a model's id at their default: earlier ids still stand."""

BOUNDS: Mapping[str, tuple[float, float]] = {
    "learning_rate": (0.0, 1e30),  # beyond, torch's optimisers overflow instead of diverging
    "weight_decay": (0.0, 1e3),
    "momentum": (0.0, 1.0),
    "label_noise": (0.0, 1.0),
    "label_smoothing": (0.0, 1.0),
    "train_fraction": (1e-4, 1.0),
    "dropout": (0.0, 0.9),
    "temperature": (1e-3, 1e2),
    "mixup": (0.0, 1e2),
    "cutmix": (0.0, 1e2),
    "random_erasing": (0.0, 1.0),
    "flip": (0.0, 1.0),
    "shift": (0, 64),
    "noise": (0.0, 10.0),
}
"""Lowest and highest value of the training factors that are numbers."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("constant", "cosine"),
    "initialization": ("default", "uniform", "normal", "kaiming_uniform", "kaiming_normal"),
    "activation": ("relu", "tanh", "gelu", "sigmoid"),
    "objective": ("supervised", "contrastive"),
    "head": ("linear", "mlp"),
}

HEAD_SIZES = frozenset({"head"})
"""Sizes of the output layer alone: a fine-tune with a new head may have its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FactorGrid:
    """The combinations of generating factors that a population's models are trained with.

    ``product`` takes every combination of ``values``, ``sampled`` draws ``num_samples`` of them
    without repetition, ``listed`` takes ``rows`` as they stand.
    """

    kind: Literal["product", "sampled", "listed"] = "product"
    values: Mapping[str, tuple[Size, ...]] = field(default_factory=dict)
    rows: tuple[Mapping[str, Size], ...] = ()
    num_samples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("product", "sampled", "listed"):
            raise ConfigError(f"kind must be product, sampled or listed, got {self.kind!r}.")
        if (self.kind == "listed") != bool(self.rows):
            raise ConfigError(f"rows go with kind='listed' and with it alone, got {self.kind!r}.")
        if (self.kind == "sampled") != (self.num_samples > 0):
            raise ConfigError(
                f"num_samples must be positive with kind='sampled' and 0 otherwise, got "
                f"{self.num_samples} with {self.kind!r}."
            )
        empty = sorted(name for name, values in self.values.items() if not values)
        if empty:
            raise ConfigError(
                f"Every factor needs at least one value, {', '.join(empty)} has none."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentConfig:
    """Where a fine-tuning population starts: the final models of another population.

    Args:
        population: Name of an earlier population.
        num_parents: How many of its models, evenly spread over its grid; 0 for all.
        per_parent: How many children each parent has; 0 for the whole grid of the stage, any other
            number deals the grid's rows out in turn.
        new_head: Start with a fresh output layer. Needed when the number of labels differs.
    """

    population: str
    num_parents: int = 0
    per_parent: int = 0
    new_head: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """One population.

    Args:
        rows_per_epoch: Training rows (windows, for running text) that make an epoch; 0 for all.
            Small models on large data sets are done before one pass is.
        eval_rows: Rows of each held-out split that models are measured on, the same ones for all;
            0 for all. Measuring 10,000 images costs a small CNN more than an epoch of 2,048.
        keep_epochs: Epochs after which a checkpoint is published beside the final model.
        keep_every: Of every so many models one keeps its checkpoints.
        seeds: Replicates of every factor combination. A seed numbers the replicate: the random
            streams come from the model's id, so no two models share an initialisation.
    """

    name: str
    architecture: str
    dataset: str
    sizes: Mapping[str, Size] = field(default_factory=dict)
    factors: FactorGrid = field(default_factory=FactorGrid)
    seeds: tuple[int, ...] = (0,)
    num_epochs: int = 4
    batch_size: int = 32
    rows_per_epoch: int = 0
    eval_rows: int = 0
    keep_epochs: tuple[int, ...] = ()
    keep_every: int = 1
    parent: ParentConfig | None = None

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURE_SIZES:
            known = ", ".join(ARCHITECTURE_SIZES)
            raise ConfigError(f"architecture must be one of {known}, got {self.architecture!r}.")
        for name, value in (
            ("num_epochs", self.num_epochs),
            ("batch_size", self.batch_size),
            ("keep_every", self.keep_every),
        ):
            if value < 1:
                raise ConfigError(f"{name} of population {self.name!r} must be positive: {value}.")
        if self.eval_rows < 0:
            raise ConfigError(f"eval_rows of {self.name!r} must not be negative: {self.eval_rows}.")
        if self.rows_per_epoch and self.rows_per_epoch < self.batch_size:
            raise ConfigError(
                f"rows_per_epoch of population {self.name!r} must be 0 or at least its batch_size "
                f"{self.batch_size}, got {self.rows_per_epoch}."
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds of {self.name!r} must be some, each once: {self.seeds}.")
        late = [epoch for epoch in self.keep_epochs if not 0 <= epoch < self.num_epochs]
        if late:
            raise ConfigError(
                f"keep_epochs of {self.name!r} must lie in [0, {self.num_epochs}), got {late}; the "
                "last epoch is always kept."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooConfig:
    """A zoo: populations in the order in which they can be trained.

    Args:
        owner: Account or organisation that the model cards name in ``base_model``.
    """

    name: str
    populations: tuple[GridConfig, ...]
    description: str = ""
    owner: str = "demo-zoo"
    licence: str = "apache-2.0"

    def __post_init__(self) -> None:
        names: dict[str, GridConfig] = {}
        for grid in self.populations:
            if grid.name in names:
                raise ConfigError(f"Population names must be unique, {grid.name!r} stands twice.")
            if grid.parent is not None:
                parent = names.get(grid.parent.population)
                if parent is None:
                    raise ConfigError(
                        f"The parent of {grid.name!r} must be an earlier population, got "
                        f"{grid.parent.population!r}."
                    )
                if parent.architecture != grid.architecture:
                    raise ConfigError(
                        f"{grid.name!r} must have its parent's architecture "
                        f"{parent.architecture!r}, got {grid.architecture!r}."
                    )
            names[grid.name] = grid

    @property
    def digest(self) -> str:
        """Sha256 over everything that decides what is trained and written."""
        return digest_of({"format": FORMAT_VERSION, **asdict(self)})


def digest_of(value: object) -> str:
    """Sha256 of a value's canonical JSON, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
