"""The zoo of data sets: the same grids on several data sets, for what diversity of data does.

Two architectures, each from scratch on data sets of one input shape and the same labels, so that
populations of one size differ in nothing but what their models were trained on. No torch, no I/O.
"""

from collections.abc import Mapping

from ws_pipeline.zoo.config import FactorGrid, GridConfig, Size, ZooConfig

DATA_SETS = ("digits", "digits-inverted", "digits-shifted", "digits-noisy")

_FACTORS: Mapping[str, tuple[Size, ...]] = {
    "learning_rate": (1e-3, 3e-3, 1e-2),
    "weight_decay": (0.0, 0.1),
    "train_fraction": (0.05, 0.2, 1.0),
    "label_noise": (0.0, 0.2),
}
"""36 models of each population: enough for 20 in the train split, 70 % of the lineages."""


def data_set_zoo() -> ZooConfig:
    """288 models: MLPs and CNNs on four sets of digits; about a minute of one Zen 4 core."""
    return ZooConfig(
        name="data-sets",
        description="288 MLPs and CNNs, the same grid on each of four data sets.",
        populations=(
            *(_population("cnn", name, num_epochs=3) for name in DATA_SETS),
            *(_population("mlp", name, num_epochs=6) for name in DATA_SETS),
        ),
    )


def _population(architecture: str, dataset: str, *, num_epochs: int) -> GridConfig:
    return GridConfig(
        name=f"{architecture}-on-{dataset}",
        architecture=architecture,
        dataset=dataset,
        factors=FactorGrid(values=_FACTORS),
        num_epochs=num_epochs,
    )
