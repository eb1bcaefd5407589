import dataclasses
import json
import subprocess
import sys

import pytest

from ws_pipeline.backbone.config import BackboneConfig, LossConfig
from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.recipes import DEFAULT_RECIPE, RECIPE_NAMES, Recipe, flatten, recipe, to_dict
from ws_pipeline.tokens.layout import TokenLayout


def changed(chosen: Recipe, **training: object) -> Recipe:
    return dataclasses.replace(
        chosen,
        training=dataclasses.replace(chosen.training, **training),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_every_recipe_is_a_whole_that_names_itself(name: str) -> None:
    assert recipe(name).name == name
    assert len(recipe(name).digest()) == 64
    assert recipe(name).description


def test_the_default_is_a_recipe() -> None:
    assert DEFAULT_RECIPE in RECIPE_NAMES


def test_an_unknown_name_is_refused_with_the_closest_one_and_all_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"no recipe 'tyni'.*mean 'tiny'.*tiny, generation, small"
    ) as caught:
        recipe("tyni")
    assert caught.value.reason == Reason.UNKNOWN_NAME
    assert caught.value.exit_code == 2


def test_the_digest_follows_every_choice_and_not_the_description() -> None:
    base = recipe("tiny")
    assert dataclasses.replace(base, description="another sentence").digest() == base.digest()
    assert changed(base, seed=1).digest() != base.digest()
    assert recipe("small").digest() != base.digest()
    assert recipe("tiny").digest() == base.digest()


def test_a_recipe_survives_json() -> None:
    values = to_dict(recipe("small"))
    assert json.loads(json.dumps(values)) == values


def test_flat_names_are_dotted_and_values_are_scalars() -> None:
    flat = flatten(recipe("tiny"))
    assert flat["training.num_steps"] == recipe("tiny").training.num_steps
    assert flat["layout.token_size"] == 64
    assert json.loads(str(flat["training.betas"])) == [0.9, 0.999]
    assert all(isinstance(value, str | int | float | bool) for value in flat.values())


def test_parts_that_do_not_fit_each_other_are_refused() -> None:
    base = recipe("tiny")
    with pytest.raises(ConfigError, match=r"token_size must equal layout.token_size = 32, got 64"):
        dataclasses.replace(base, layout=TokenLayout(kind="sliced", token_size=32))
    with pytest.raises(ConfigError, match=r"layout must equal layout.kind = 'dense'"):
        dataclasses.replace(base, layout=TokenLayout(kind="dense"))
    with pytest.raises(ConfigError, match=r"contrastive_weight of 0.5 needs a projection head"):
        dataclasses.replace(
            base,
            loss=LossConfig(contrastive_weight=0.5),
            backbone=BackboneConfig(layout="sliced", projection_size=0),
        )


def test_recipes_import_no_framework() -> None:
    code = "import sys; import ws_pipeline.recipes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
