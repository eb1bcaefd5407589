"""A zoo's uses are tables and figures in its folder; what it has nothing for is left out."""

from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.applications import (
    study_applications,
    summarise_gains,
    write_application,
)
from ws_pipeline.zoo.soup_study import summarise_gain


def test_a_zoo_of_fine_tunes_has_all_four(vit_folder: Path) -> None:
    found = {(each.name, each.group): each for each in study_applications(vit_folder)}
    populations = {group for name, group in found if name == "barriers"}
    assert {name for name, _ in found} == {"parents", "soups", "epochs", "barriers"}
    assert populations == {"vit-digits-supervised-finetuned", "vit-digits-contrastive-finetuned"}
    for each in found.values():
        path = write_application(vit_folder, each)
        assert pl.read_parquet(path).equals(each.table)
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    soups = found["soups", "vit-digits-supervised-finetuned"]
    gains = summarise_gains(soups)
    by_parent = soups.table.group_by("parent").mean()
    expected = summarise_gain((by_parent["uniform"] - by_parent["mean_member"]).to_list())
    assert gains.filter(of="uniform", minus="mean_member")["gain"][0] == pytest.approx(
        expected.mean
    )
    assert summarise_gains(found["parents", "vit"]).is_empty()


def test_the_way_to_a_model_is_no_shorter_than_after_alignment(vit_folder: Path) -> None:
    ways = {
        each.group: each.table for each in study_applications(vit_folder) if each.name == "barriers"
    }
    for table in ways.values():
        distance = dict(table.select("way", "distance").iter_rows())
        assert set(distance) <= {
            "one parent",
            "one parent, aligned",
            "two parents",
            "two parents, aligned",
        }
        for way in ("one parent", "two parents"):
            if way in distance:
                assert distance[f"{way}, aligned"] <= distance[way] + 1e-9


def test_a_folder_without_a_zoo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="must hold a trained zoo"):
        list(study_applications(tmp_path))
