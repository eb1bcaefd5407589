"""Composition: does the diversity of what a backbone is trained on matter more than its size?

Nested populations of the corpus' zoos (families whose cards state generating factors) and of its
hub (all others), at the same steps: more models of the same families, the same number of models of
more families, the hub alone, hub and zoos. Errors are taken within the zoos, within the hub, and on
either side of what a variant was trained on. Source of the question: arXiv 2504.10141. No I/O.
"""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.targets import read_card_truth
from ws_pipeline.recipes import Recipe, recipe
from ws_pipeline.studies.study import Population, Study, Variant

SMALL = 20
"""Models of the populations of fixed size: as many as the smallest zoo of the demo trains on."""

SIZES = (SMALL, 60)
"""Nested sizes at fixed diversity, before all there are."""

BASELINE = f"{SMALL} models of all zoos"
"""Beside which both questions are asked: more models, fewer families."""

SEEDS = (0, 1, 2)

ZOOS, HUB = "zoos", "hub"


def composition_study(corpus: pl.DataFrame, *, num_steps: int = 60) -> Study:
    """Return the study of a corpus; a cell takes about ten seconds of one Zen 4 core.

    Raises:
        MissingInputError: If the corpus has no zoo.
    """
    zoos, hub = split_families(corpus)
    if not zoos:
        raise MissingInputError(
            "The composition study needs zoos, models whose cards state generating factors, and "
            "the corpus has none; run ws-pipeline demo first."
        )
    base = shorten(recipe("tiny"), num_steps=num_steps)
    return Study(
        name="composition",
        question="Does the diversity of a population matter more than its size?",
        variants=tuple(_variants(base, zoos, hub)),
        baseline=BASELINE,
        groups={ZOOS: frozenset(zoos), HUB: frozenset(hub)},
    )


def split_families(corpus: pl.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the families of zoos and of the hub, those with the most models to train on first."""
    factors = read_card_truth(corpus, ()).factors.select("hub_id").unique()
    trained = corpus.filter(pl.col("split") == "train")
    counts = trained.group_by("family").len().sort("len", "family", descending=[True, False])
    made = set(corpus.join(factors, on="hub_id", how="semi")["family"])
    names = counts["family"].to_list()
    return tuple(n for n in names if n in made), tuple(n for n in names if n not in made)


def shorten(base: Recipe, *, num_steps: int) -> Recipe:
    """Return a recipe of few steps of half as many windows, measured at its end only."""
    training = replace(
        base.training,
        num_steps=num_steps,
        batch_size=16,
        evaluate_every=num_steps,
        checkpoint_every=num_steps,
        log_every=20,
    )
    return replace(base, training=training)


def _of_zoos(num_models: int) -> str:
    return f"{num_models} models of all zoos"


def _variants(base: Recipe, zoos: tuple[str, ...], hub: tuple[str, ...]) -> Iterator[Variant]:
    def variant(name: str, axis: str, families: tuple[str, ...], num_models: int = 0) -> Variant:
        return Variant(
            name=name,
            recipe=base,
            factors={"axis": axis, "families": str(len(families))},
            population=Population(families=families, num_models=num_models),
            seeds=SEEDS,
        )

    for size in SIZES:
        yield variant(_of_zoos(size), "size", zoos, size)
    yield variant("all models of all zoos", "size", zoos)
    for zoo in zoos:
        yield variant(f"{SMALL} models of {zoo}", "diversity", (zoo,), SMALL)
    if len(zoos) > 2:
        yield variant(f"{SMALL} models of {zoos[0]} and {zoos[1]}", "diversity", zoos[:2], SMALL)
    if hub:
        yield variant(f"{SMALL} models of the hub", "diversity", hub, SMALL)
        yield variant("all models of the hub", "hub", hub)
        yield variant("hub and zoos", "hub", (*zoos, *hub))
