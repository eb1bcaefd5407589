import pytest

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, ZooConfig


def grid(**changes: object) -> GridConfig:
    return GridConfig(**{"name": "a", "architecture": "mlp", "dataset": "digits", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "mpl"}, "architecture must be one of mlp.*got 'mpl'"),
        ({"num_epochs": 0}, "num_epochs of population 'a' must be positive: 0"),
        ({"keep_epochs": (4,)}, r"must lie in \[0, 4\), got \[4\]"),
        ({"seeds": (1, 1)}, "each once"),
    ],
)
def test_a_population_names_the_field_that_is_out_of_bounds(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        grid(**changes)


def test_a_factor_grid_is_of_one_kind() -> None:
    with pytest.raises(ConfigError, match="num_samples must be positive"):
        FactorGrid(kind="sampled", values={"seed": (1,)})
    with pytest.raises(ConfigError, match="rows go with"):
        FactorGrid(kind="listed")
    with pytest.raises(ConfigError, match="at least one value, learning_rate has none"):
        FactorGrid(values={"learning_rate": ()})


def test_a_fine_tuning_stage_comes_after_its_parents_and_has_their_architecture() -> None:
    child = grid(name="b", parent=ParentConfig(population="a"))
    assert ZooConfig(name="z", populations=(grid(), child)).digest
    with pytest.raises(ConfigError, match="must be an earlier population, got 'a'"):
        ZooConfig(name="z", populations=(child, grid()))
    with pytest.raises(ConfigError, match="must have its parent's architecture 'cnn'"):
        ZooConfig(name="z", populations=(grid(architecture="cnn"), child))
    with pytest.raises(ConfigError, match="'a' stands twice"):
        ZooConfig(name="z", populations=(grid(), grid()))


def test_the_digest_follows_the_content() -> None:
    one = ZooConfig(name="z", populations=(grid(),))
    assert one.digest == ZooConfig(name="z", populations=(grid(),)).digest
    assert one.digest != ZooConfig(name="z", populations=(grid(batch_size=31),)).digest
