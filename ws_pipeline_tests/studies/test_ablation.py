from itertools import product

from ws_pipeline.backbone.model import count_parameters
from ws_pipeline.recipes import recipe
from ws_pipeline.studies.ablation import BASELINE, RATES, ablation_study, papers_choice

GRID = [v for v in ablation_study().variants if v.factors["block"] == "grid"]


def test_the_grid_holds_every_combination_once() -> None:
    axes = ("layout", "positions", "normalization", "contrastive")
    found = [tuple(variant.factors[axis] for axis in axes) for variant in GRID]
    wanted = product(
        ("dense", "sliced"),
        ("learned", "summed", "banded"),
        ("none", "batch", "window", "token", "layer"),
        ("0", "0.05"),
    )
    assert sorted(found) == sorted(wanted)


def test_a_variant_is_what_its_factors_say() -> None:
    for variant in GRID:
        backbone, loss = variant.recipe.backbone, variant.recipe.loss
        assert backbone.layout == variant.recipe.layout.kind == variant.factors["layout"]
        assert backbone.position_code == variant.factors["positions"]
        assert loss.normalization == variant.factors["normalization"]
        assert f"{loss.contrastive_weight:g}" == variant.factors["contrastive"]
        assert backbone.use_scale == (backbone.normalization != "none")


def test_the_grid_differs_in_nothing_but_its_factors() -> None:
    trainings = {variant.recipe.training for variant in GRID}
    views = {variant.recipe.views for variant in GRID}
    latents = {variant.recipe.backbone.latent_size for variant in GRID}
    assert (len(trainings), len(views), len(latents)) == (1, 1, 1)
    assert BASELINE in {variant.name for variant in GRID}


def test_the_papers_choice_has_the_size_the_data_and_the_steps_of_ours() -> None:
    ours = recipe("tiny")
    papers = papers_choice(ours)
    assert papers.training == ours.training
    assert papers.layout.kind == "dense"
    assert (papers.layout.token_size, papers.mixture) == (ours.layout.token_size, ours.mixture)
    sizes = [count_parameters(each.backbone) for each in (ours, papers)]
    assert abs(sizes[1] / sizes[0] - 1.0) < 0.01


def test_ours_and_the_papers_stand_beside_each_other_at_every_rate() -> None:
    names = {variant.name for variant in ablation_study().variants}
    for rate in RATES:
        assert {f"latent {rate}: ours", f"latent {rate}: papers"} <= names
    assert {"default recipe: ours", "default recipe: papers"} <= names
