from pathlib import Path

import polars as pl
import pytest
import yaml
from huggingface_hub import ModelCard

from ws_pipeline.zoo.index import read_index


def card_of(folder: Path, name: str) -> ModelCard:
    return ModelCard.load(folder / "repos" / name / "README.md")


def test_cards_parse_with_the_hubs_own_classes_and_carry_the_metrics(tiny_folder: Path) -> None:
    for row in read_index(tiny_folder).iter_rows(named=True):
        card = card_of(tiny_folder, row["name"])
        results = {result.metric_type: result for result in card.data.eval_results}
        for metric in ("accuracy", "train_accuracy", "loss", "generalization_gap", "epoch"):
            assert results[metric].metric_value == row[metric]
        assert results["accuracy"].dataset_split == "test"
        assert results["accuracy"].dataset_name == row["dataset"]
        assert card.data.model_name == row["name"]


def test_cards_say_what_made_the_model_in_flat_scalars(tiny_folder: Path) -> None:
    for row in read_index(tiny_folder).iter_rows(named=True):
        card = card_of(tiny_folder, row["name"])
        assert card.data.license == "apache-2.0"
        assert card.data.library_name == "pytorch"
        assert row["family"] in card.data.tags
        assert card.data.datasets == [row["dataset"]]
        factors = card.data.to_dict()["generating_factors"]
        assert all(isinstance(value, str | int | float | bool) for value in factors.values())
        assert factors["stage"] == row["stage"]
        assert {"learning_rate", "weight_decay", "seed", "train_fraction"} <= factors.keys()


def test_lineage_runs_through_checkpoints_to_the_parent(tiny_folder: Path) -> None:
    index = read_index(tiny_folder)
    for row in index.iter_rows(named=True):
        data = card_of(tiny_folder, row["name"]).data.to_dict()
        if not row["base_model"]:
            assert "base_model" not in data
            assert "base_model_relation" not in data
            continue
        assert data["base_model"] == f"demo-zoo/{row['base_model']}"
        assert data["base_model_relation"] == "finetune"
        base = index.row(by_predicate=pl.col("name") == row["base_model"], named=True)
        assert base["root"] == row["root"]
    assert index.filter(pl.col("base_model").str.ends_with("-epoch2"), "is_final").height == 1
    assert index.filter(pl.col("stage") == "finetune").height == 2


def test_the_front_matter_is_plain_yaml(tiny_folder: Path) -> None:
    for readme in (tiny_folder / "repos").glob("*/README.md"):
        _, front, body = readme.read_text(encoding="utf-8").split("---\n", 2)
        assert isinstance(yaml.safe_load(front), dict)
        assert body.startswith(f"\n# {readme.parent.name}\n")


@pytest.mark.parametrize("population", ["bert", "gpt2"])
def test_text_models_state_their_alphabet(population: str, transformers_folder: Path) -> None:
    rows = read_index(transformers_folder).filter(pl.col("population") == population)
    assert (
        "abcdefghijklmnopqrstuvwxyz0123456789" in card_of(transformers_folder, rows["name"][0]).text
    )
