"""A corpus of twelve labelled models of two families, and a study of two variants over it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from ws_pipeline.recipes import Recipe, recipe
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.study import Population, Study, Variant
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline_tests.backbone.tiny_corpus import TINY, TOKEN_SIZE, build_corpus
from ws_pipeline_tests.evaluation.population import card

SPLITS = ("train", "train", "test", "train", "val", "test")


def build_labelled_corpus(root: Path, num_models: int = 48) -> tuple[Store, pl.DataFrame]:
    """Every model is its own lineage; `family-0` is a zoo, `family-1` comes without factors."""
    store, _, corpus = build_corpus(root, num_models)
    accuracy = np.random.default_rng(0).uniform(0.1, 0.9, size=num_models)
    cards = [
        card(float(value), factors={"seed": index} if index % 2 == 0 else None)
        for index, value in enumerate(accuracy)
    ]
    split = [SPLITS[(index // 2) % len(SPLITS)] for index in range(num_models)]
    corpus = corpus.with_columns(
        card=pl.Series(cards), split=pl.Series(split), lineage_root=pl.col("hub_id")
    )
    return store, corpus


def quick_recipe(num_steps: int = 3) -> Recipe:
    """The smallest backbone, a few steps."""
    base = recipe("tiny")
    training = replace(
        base.training,
        num_steps=num_steps,
        batch_size=4,
        window_size=16,
        log_every=1,
        checkpoint_every=num_steps,
        evaluate_every=num_steps,
        precision="fp32",
    )
    return replace(
        base, backbone=TINY, layout=TokenLayout(token_size=TOKEN_SIZE), training=training
    )


def quick_study() -> Study:
    """All models beside one family, two seeds of the former."""
    base = quick_recipe()
    return Study(
        name="quick",
        question="Does it run?",
        variants=(
            Variant(name="all", recipe=base, factors={"families": "2"}, seeds=(0, 1)),
            Variant(
                name="one family",
                recipe=base,
                factors={"families": "1"},
                population=Population(families=("family-0",)),
            ),
        ),
        baseline="all",
        groups={"zoos": frozenset({"family-0"})},
    )
