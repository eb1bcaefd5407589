import subprocess
import sys

import pytest

from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.zoo.catalog import ZOO_NAMES, zoo_config
from ws_pipeline.zoo.grid import plan_zoo


def test_every_zoo_has_its_name() -> None:
    assert {"demo", "tiny"} <= set(ZOO_NAMES)
    assert all(zoo_config(name).name == name for name in ZOO_NAMES)


def test_an_unknown_zoo_is_refused_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match="There is no zoo 'dem'; did you mean demo") as caught:
        zoo_config("dem")
    assert caught.value.reason == Reason.UNKNOWN_NAME


def test_configs_and_publishing_need_no_torch() -> None:
    code = (
        "import sys\n"
        "import ws_pipeline.zoo.catalog, ws_pipeline.zoo.grid, ws_pipeline.zoo.publish\n"
        "assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_published_cnn_grid_has_its_1280_models() -> None:
    plans = plan_zoo(zoo_config("cnn-fashion"))
    models = [plan for population in plans.values() for plan in population]
    assert len(models) == 4 * 2 * 4 * 2 * 2 * 10
    assert all(plan.keep_epochs == tuple(range(1, plan.num_epochs)) for plan in models)
    assert {plan.factors["dropout"] for plan in models} == {0.0, 0.5}


def test_the_zoo_of_data_sets_has_the_same_grid_on_each_of_them() -> None:
    plans = plan_zoo(zoo_config("data-sets"))
    grids: dict[str, set[tuple[tuple[str, object], ...]]] = {}
    for population in plans.values():
        rows = {tuple(sorted((k, str(v)) for k, v in plan.factors.items())) for plan in population}
        assert len(rows) == len(population) == 36
        architecture = population[0].architecture
        assert grids.setdefault(architecture, rows) == rows
    kinds = {(p[0].architecture, p[0].dataset) for p in plans.values()}
    assert len(kinds) == len(plans) == 8
    assert {dataset for _, dataset in kinds} == {
        "digits",
        "digits-inverted",
        "digits-shifted",
        "digits-noisy",
    }
