"""Soups and averages of epochs are compared with what they are made of."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.application_figures import draw_epoch_averages, draw_recalls, draw_soups
from ws_pipeline.zoo.datasets.digits import load_digits
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.parents import ParentSearch, compare_searches
from ws_pipeline.zoo.soup_study import (
    EPOCHS_SCHEMA,
    SOUPS_SCHEMA,
    compare_epoch_averages,
    compare_soups,
    summarise_gain,
)

CHILDREN = "vit-digits-supervised-finetuned"


def test_soups_stand_beside_their_members_shape_by_shape(vit_folder: Path) -> None:
    table = compare_soups(vit_folder, CHILDREN, load_digits("digits"))
    assert dict(table.schema) == SOUPS_SCHEMA
    final = read_index(vit_folder).filter(pl.col("is_final"), population=CHILDREN)
    assert table["num_params"].n_unique() == table.height == 2
    for row in table.iter_rows(named=True):
        members = final.filter(num_params=row["num_params"], root=row["parent"])
        assert row["num_members"] == members.height == 2
        assert row["mean_member"] == pytest.approx(members["accuracy"].mean(), abs=1e-5)
        best = members.sort("val_accuracy", descending=True)["accuracy"][0]
        assert row["best_member"] == pytest.approx(best, abs=1e-5)
        assert row["num_greedy"] in (1, 2)
        assert row["num_greedy"] == 2 or row["greedy"] == row["best_member"]
    axes = draw_soups(table).axes[0]
    assert len(axes.lines) == table.height + 1
    np.testing.assert_allclose(axes.lines[-1].get_ydata()[1], table["uniform"].mean())


def test_kept_epochs_are_averaged_and_compared_with_the_last(vit_folder: Path) -> None:
    table = compare_epoch_averages(vit_folder, CHILDREN, load_digits("digits"))
    assert dict(table.schema) == EPOCHS_SCHEMA
    index = read_index(vit_folder)
    last = dict(index.filter("is_final").select("name", "accuracy").iter_rows())
    for row in table.iter_rows(named=True):
        assert row["num_epochs"] == 2
        assert row["last"] == pytest.approx(last[row["name"]], abs=1e-5)
        assert row["average"] != row["last"]
    assert len(draw_epoch_averages(table).axes[0].collections[0].get_offsets()) == table.height


def test_a_population_that_has_neither_is_refused(vit_folder: Path) -> None:
    with pytest.raises(MissingInputError, match="two fine-tunes of one parent"):
        compare_soups(vit_folder, "vit-digits-supervised", load_digits("digits-low"))
    with pytest.raises(MissingInputError, match="must hold kept epochs"):
        compare_epoch_averages(vit_folder, "vit-digits-supervised", load_digits("digits-low"))


def test_the_interval_of_a_gain_is_students() -> None:
    gain = summarise_gain([0.1, 0.2, 0.3])
    assert gain.mean == pytest.approx(0.2)
    assert gain.high - gain.mean == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)
    assert gain.mean - gain.low == pytest.approx(gain.high - gain.mean)
    assert np.isnan(summarise_gain([0.1]).low)


def test_searches_are_compared_and_spectra_need_no_alignment(vit_folder: Path) -> None:
    searches = {
        "plain": ParentSearch(distance="spectra"),
        "permuted": ParentSearch(distance="spectra", permute=True),
        "weights, permuted": ParentSearch(permute=True),
    }
    table = compare_searches(vit_folder, "vit", searches)
    assert table["search"].to_list() == list(searches)
    assert set(table["num_children"]) == {8}
    assert table["recall"][0] == table["recall"][1] == 1.0
    assert (table["low"] < table["recall"]).all()
    assert set(table["chance"]) == {0.5}
    bars = draw_recalls(table).axes[0].patches
    assert [bar.get_width() for bar in bars] == table["recall"].to_list()
