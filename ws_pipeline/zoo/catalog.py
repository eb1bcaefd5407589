"""The zoos that have a name, as functions that return frozen configs. No torch, no I/O."""

from collections.abc import Callable
from difflib import get_close_matches

from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, ZooConfig


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


_ZOOS: dict[str, Callable[[], ZooConfig]] = {"tiny": _tiny}

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
