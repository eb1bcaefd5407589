"""The report is a data-set repo that the Hub's own classes read."""

import re
import warnings
from pathlib import Path

import polars as pl
from huggingface_hub import DatasetCard
from polars.testing import assert_frame_equal

from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.dataset_repo import write_report
from ws_pipeline.zoo.diversity_report import tabulate_explained
from ws_pipeline.zoo.diversity_rows import make_row
from ws_pipeline.zoo.index import read_index


def test_the_card_parses_and_names_files_that_are_there(reported_folder: Path) -> None:
    report = reported_folder / "report"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        card = DatasetCard.load(report / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.size_categories == ["n<1K"]
    assert {"model-zoo", "cnn", "mlp"} <= set(card.data.tags)
    for config in card.data.to_dict()["configs"]:
        assert (report / config["data_files"]).is_file()
    pictures = re.findall(r"\]\(([^)]+\.png)\)", card.text)
    assert len(pictures) == len(list((report / "figures").iterdir())) == 7
    for picture in pictures:
        assert (report / picture).read_bytes().startswith(b"\x89PNG")


def test_the_tables_are_the_index_and_the_numbers(
    reported_folder: Path, tiny_table: pl.DataFrame
) -> None:
    report = reported_folder / "report"
    assert_frame_equal(pl.read_parquet(report / "index.parquet"), read_index(reported_folder))
    assert_frame_equal(pl.read_parquet(report / "diversity.parquet"), tiny_table)


def test_the_card_says_the_accuracies_and_what_pairs_share(reported_folder: Path) -> None:
    text = (reported_folder / "report" / "README.md").read_text()
    best = (
        read_index(reported_folder).filter(pl.col("population") == "cnn-digits")["accuracy"].max()
    )
    assert f"{best:.3f}" in text
    for heading in ("Pairs of models", "Calibration and robustness", "generating factors explain"):
        assert heading in text
    assert "kappa_of_errors" in text
    assert "mlp relatives" in text


def test_writing_it_again_changes_no_byte(reported_folder: Path, tiny_table: pl.DataFrame) -> None:
    report = reported_folder / "report"
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    write_report(reported_folder, zoo_config("tiny"), tiny_table)
    assert {path: path.read_bytes() for path in report.rglob("*") if path.is_file()} == before


def test_shapes_of_one_group_are_weighed_by_their_models() -> None:
    rows = [
        make_row("cnn", "weights", "weights", group, "explained_adjusted", value, count)
        for group, value, count in (
            ("digits/pretrain shape 1: dropout", 0.5, 30),
            ("digits/pretrain shape 2: dropout", 0.1, 10),
            ("digits/pretrain shape 1: seed", 0.0, 30),
        )
    ]
    table = tabulate_explained(pl.DataFrame(rows))
    assert table.columns == ["family", "on", "factor", "weights"]
    assert table.rows() == [
        ("cnn", "digits/pretrain", "dropout", 0.4),
        ("cnn", "digits/pretrain", "seed", 0.0),
    ]
