"""The zoos that have a name, as functions that return frozen configs. No torch, no I/O."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, Size, ZooConfig
from ws_pipeline.zoo.data_set_zoo import data_set_zoo
from ws_pipeline.zoo.demo_zoo import demo_zoo
from ws_pipeline.zoo.vit_zoo import vit_digits, vit_fashion, vit_paper

PUBLISHED_CNN: Mapping[str, Size] = {
    "channels": (8, 6, 4),
    "kernel_sizes": (5, 5, 2),
    "padding": 0,
    "pools": (1, 2),
    "hidden_size": 20,
    "batch_norm": False,
}
"""The 2,464 parameters of the published zoos on 28x28 grey images."""


def _tiny() -> ZooConfig:
    """A handful of models of two families in about three seconds, for tests."""
    return ZooConfig(
        name="tiny",
        description="A few MLPs and BatchNorm CNNs on digits, with checkpoints and fine-tunes.",
        populations=(
            GridConfig(
                name="mlp-digits",
                architecture="mlp",
                dataset="digits",
                sizes={"hidden_sizes": (16,)},
                factors=FactorGrid(values={"learning_rate": (3e-4, 1e-2)}),
                seeds=(0, 1),
                num_epochs=4,
                keep_epochs=(2,),
                keep_every=4,
            ),
            GridConfig(
                name="cnn-digits",
                architecture="cnn",
                dataset="digits",
                sizes={"channels": (4, 6, 8), "hidden_size": 16},
                factors=FactorGrid(values={"learning_rate": (1e-3, 1e-2)}),
                num_epochs=2,
            ),
            GridConfig(
                name="mlp-inverted",
                architecture="mlp",
                dataset="digits-inverted",
                factors=FactorGrid(values={"learning_rate": (3e-3,)}),
                num_epochs=2,
                parent=ParentConfig(population="mlp-digits", num_parents=2),
            ),
        ),
    )


def _cnn_fashion() -> ZooConfig:
    """1,280 small CNNs on Fashion-MNIST over the published grid, every epoch kept.

    An epoch is 1,536 images: the 2,464 parameters are done long before one pass over 54,000.

    Source: https://arxiv.org/abs/2209.14764, section 3 (four activations, two dropout rates, four
    initialisations, two optimisers, two weight decays, ten seeds). Their learning rate differs by
    optimiser; ours is one for both.
    """
    populations = tuple(
        GridConfig(
            name=f"cnn-fashion-{activation}",
            architecture="cnn",
            dataset="fashion-mnist",
            sizes={**PUBLISHED_CNN, "activation": activation},
            factors=FactorGrid(
                values={
                    "dropout": (0.0, 0.5),
                    "initialization": ("uniform", "normal", "kaiming_uniform", "kaiming_normal"),
                    "optimizer": ("adam", "sgd"),
                    "weight_decay": (1e-2, 1e-3),
                    "learning_rate": (3e-3,),
                }
            ),
            seeds=tuple(range(10)),
            num_epochs=6,
            rows_per_epoch=1_536,
            eval_rows=500,
            keep_epochs=tuple(range(1, 6)),
        )
        for activation in ("relu", "tanh", "gelu", "sigmoid")
    )
    description = "1,280 CNNs of 2,464 parameters on Fashion-MNIST, a checkpoint of every epoch."
    return ZooConfig(
        name="cnn-fashion", owner="cnn-zoo", description=description, populations=populations
    )


_ZOOS: dict[str, Callable[[], ZooConfig]] = {
    "demo": demo_zoo,
    "tiny": _tiny,
    "data-sets": data_set_zoo,
    "cnn-fashion": _cnn_fashion,
    "vit-digits": vit_digits,
    "vit-fashion": vit_fashion,
    "vit-paper": vit_paper,
}

ZOO_NAMES = tuple(_ZOOS)


def zoo_config(name: str) -> ZooConfig:
    """Look up a zoo.

    Raises:
        ConfigError: When there is none of that name; the message has the closest ones.
    """
    if name not in _ZOOS:
        close = get_close_matches(name, ZOO_NAMES, n=3) or ZOO_NAMES
        raise ConfigError(
            f"There is no zoo {name!r}; did you mean {', '.join(close)}?",
            reason=Reason.UNKNOWN_NAME,
        )
    return _ZOOS[name]()
