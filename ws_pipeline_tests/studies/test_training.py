"""A cell's training sees what its recipe asks for."""

from dataclasses import replace
from pathlib import Path

import torch

from ws_pipeline.backbone.batches import to_windows
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.recipes import Recipe
from ws_pipeline.studies.bench import Bench
from ws_pipeline.studies.study import Cell, Variant
from ws_pipeline.studies.training import open_windows
from ws_pipeline_tests.studies.small_study import build_labelled_corpus, quick_recipe


def permuted_recipe(contrastive_weight: float) -> Recipe:
    base = quick_recipe(num_steps=2)
    return replace(
        base,
        views=replace(base.views, permutation=True),
        loss=replace(base.loss, contrastive_weight=contrastive_weight),
    )


def make_bench(root: Path) -> Bench:
    store, corpus = build_labelled_corpus(root, 24)
    return Bench(home=root, store=store, corpus=corpus, study="orders")


def cell_of(recipe: Recipe) -> Cell:
    return Cell(variant=Variant(name="cell", recipe=recipe, factors={}), seed=0)


def first_batch(bench: Bench, recipe: Recipe) -> Windows:
    windows = open_windows(bench.store, bench.job(cell_of(recipe)), bench.corpus)
    return to_windows(windows[0], torch.device("cpu"))


def test_a_contrastive_recipe_with_permuted_views_sees_each_window_in_both_orders(
    tmp_path: Path,
) -> None:
    bench = make_bench(tmp_path)
    stored = first_batch(bench, quick_recipe())
    both = first_batch(bench, permuted_recipe(0.1))
    first, second = both.tokens.chunk(2)
    assert torch.equal(first, stored.tokens)
    assert not torch.equal(second, stored.tokens)  # the hidden units stand in another order
    for part in (both.mask, both.positions, both.scale):
        assert torch.equal(*part.chunk(2))


def test_permuted_views_without_a_pair_are_the_only_ones(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    both, alone = (first_batch(bench, permuted_recipe(weight)) for weight in (0.1, 0.0))
    assert torch.equal(alone.tokens, both.tokens.chunk(2)[1])


def test_a_cell_of_a_contrastive_recipe_with_permuted_views_is_made(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    cell = cell_of(permuted_recipe(0.5))
    made = bench.make(cell)
    again = bench.read(cell)
    assert again is not None
    assert again.errors.equals(made.errors)
    assert made.errors["relative_error"].is_finite().all()
