"""The ablation: which of our choices carry the backbone, and what the papers' own give. No I/O.

Three blocks in one study:

- the grid: layout x positions x normalisation x contrastive weight, 60 variants at a short budget;
- the rate: ours beside the papers' at three sizes of the latent, since weights are close to white
  and the latent decides most of what comes back;
- the default recipe at its full steps beside the papers' choice at equal size, data and steps.

All variants see the same models, windows' worth of data and steps, and have the same latent for a
token. The sliced layout pads every row, so it spends more numbers on a weight: the table says how
many. `normalization` is what the encoder sees and what the loss is measured in, but for `batch`,
which in the papers is a loss only (masked loss normalisation): the encoder sees raw weights.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import get_args

from ws_pipeline.backbone.config import Layout, Normalization, PositionCode
from ws_pipeline.recipes import Recipe, recipe
from ws_pipeline.studies.study import Study, Variant

BASELINE = "dense banded layer 0"
"""Of the grid: the least error among dense tokens, which spend half a number per weight."""

LATENT_SIZE = 32
"""Of the grid: half of a token, so that there is something to lose."""

RATES = (32, 48, 56, 64)
"""Sizes of the latent for a token of 64."""

DECIDING_SEEDS = (0, 1, 2)
"""Of the variants that decide something."""

CONTRASTIVE_WEIGHTS = (0.0, 0.05)
"""The lab's latest code, and SANE."""

LEARNED_POSITIONS = 1_024
"""Rows of the learned tables: 0.4 M parameters, as many as all else. Models of the zoos have at
most 400 dense tokens; what lies beyond shares the last row, which is what such tables do."""


def ablation_study() -> Study:
    """Return the whole study; all cells take about half an hour of one Zen 4 core."""
    return Study(
        name="ablation",
        question="Which choices carry the backbone, and what do the papers' own give?",
        variants=(*_rates(), *_grid(), *_full_length()),
        baseline=BASELINE,
    )


def _grid() -> Iterator[Variant]:
    base = _shorten(with_latent(recipe("tiny"), LATENT_SIZE), num_steps=40)
    base = replace(base, backbone=replace(base.backbone, projection_size=32))
    choices = product(
        get_args(Layout), get_args(PositionCode), get_args(Normalization), CONTRASTIVE_WEIGHTS
    )
    for layout, positions, normalization, weight in choices:
        changed = with_normalization(base, normalization)
        changed = with_layout(changed, layout)
        changed = replace(
            changed,
            backbone=replace(
                changed.backbone,
                position_code=positions,
                max_positions=LEARNED_POSITIONS,
            ),
            loss=replace(changed.loss, contrastive_weight=weight),
        )
        factors = {
            "block": "grid",
            "layout": layout,
            "positions": positions,
            "normalization": normalization,
            "contrastive": f"{weight:g}",
        }
        name = f"{layout} {positions} {normalization} {weight:g}"
        yield Variant(name=name, recipe=changed, factors=factors)


def _rates() -> Iterator[Variant]:
    for latent_size in RATES:
        base = with_layout(with_latent(recipe("tiny"), latent_size), "dense")
        base = _shorten(base, num_steps=150)
        for who, changed in (
            ("ours", base),
            ("papers", papers_choice(base)),
            ("papers, our start", replace_start(papers_choice(base))),
        ):
            yield Variant(
                name=f"latent {latent_size}: {who}",
                recipe=changed,
                factors={"block": "rate", "choice": who, "latent": str(latent_size)},
                seeds=DECIDING_SEEDS,
                compared_with=f"latent {latent_size}: papers",
            )


def _full_length() -> Iterator[Variant]:
    base = _quiet(recipe("tiny"))
    for who, changed in (("ours", base), ("papers", papers_choice(base))):
        yield Variant(
            name=f"default recipe: {who}",
            recipe=changed,
            factors={"block": "default", "choice": who},
            seeds=DECIDING_SEEDS,
            compared_with="default recipe: papers",
        )


def papers_choice(base: Recipe) -> Recipe:
    """Return a recipe with the hub paper's choices at the same size, data and steps.

    Dense tokens, summed sinusoids, raw weights in and masked loss normalisation over the batch, no
    side information of scale, multiplicative noise alone as a view, torch's initial weights. The
    papers' contrastive weight is not among them: the lab's latest code has none.
    Source: arXiv 2510.02096, 2504.10141, as METHOD 2 to 4 state them.
    """
    base = with_layout(with_normalization(base, "batch"), "dense")
    return replace(
        base,
        backbone=replace(base.backbone, position_code="summed", initialization="uniform"),
        views=replace(base.views, noise=0.1, mixtures=0.0, flip_signs=False),
    )


def replace_start(base: Recipe) -> Recipe:
    """Return a recipe that starts as our orthogonal projection."""
    return replace(base, backbone=replace(base.backbone, initialization="projection"))


def with_layout(base: Recipe, kind: Layout) -> Recipe:
    """Return a recipe that cuts layers otherwise."""
    return replace(
        base,
        layout=replace(base.layout, kind=kind),
        backbone=replace(base.backbone, layout=kind),
    )


def with_latent(base: Recipe, latent_size: int) -> Recipe:
    """Return a recipe with another size of the latent; 64 parameters a number, 1 % of `tiny`."""
    return replace(base, backbone=replace(base.backbone, latent_size=latent_size))


def with_normalization(base: Recipe, normalization: Normalization) -> Recipe:
    """Return a recipe that normalises otherwise; the scale goes in where something is removed."""
    seen: Normalization = "none" if normalization == "batch" else normalization
    removed = seen != "none"
    return replace(
        base,
        backbone=replace(base.backbone, normalization=seen, use_scale=removed),
        loss=replace(
            base.loss,
            normalization=normalization,
            scale_weight=base.loss.scale_weight if removed else 0.0,
        ),
    )


def _shorten(base: Recipe, *, num_steps: int) -> Recipe:
    return _quiet(
        replace(base, training=replace(base.training, num_steps=num_steps, batch_size=16))
    )


def _quiet(base: Recipe) -> Recipe:
    """Return a recipe without evaluations on the way: a cell is measured at its end."""
    steps = base.training.num_steps
    training = replace(base.training, evaluate_every=steps, checkpoint_every=steps, log_every=20)
    return replace(base, training=training)
