import json

import polars as pl
import pytest

from ws_pipeline.evaluation.targets import (
    MAX_CARD_CHARS,
    MAX_ENTRIES,
    parse_card,
    read_card_truth,
    read_factors,
    read_metrics,
)
from ws_pipeline_tests.evaluation.population import card


def read(*cards: str | None, targets: tuple[str, ...] = ("accuracy",)):
    corpus = pl.DataFrame(
        {"hub_id": [f"m{i}" for i in range(len(cards))], "card": list(cards)},
        schema={"hub_id": pl.String, "card": pl.String},
    )
    return read_card_truth(corpus, targets)


def test_metrics_are_read_from_the_model_index():
    truth = read(card(0.75, 0.1, {"lr": 0.1, "optimizer": "adam"}, epoch=3))
    assert truth.targets["accuracy"].to_list() == [0.75]
    assert truth.missing.is_empty()
    assert dict(truth.factors.select("name", "number").rows()) == {
        "lr": 0.1,
        "optimizer": None,
        "epoch": 3.0,
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "card_invalid"),
        ("", "card_invalid"),
        ("not json", "card_invalid"),
        ("[1, 2]", "card_invalid"),
        ("[" * 50_000, "card_invalid"),
        ('{"model-index": ' + "9" * 60_000 + "}", "card_invalid"),
        ('"' + "x" * MAX_CARD_CHARS + '"', "card_invalid"),
        ("{}", "metric_not_reported"),
        ('{"model-index": {"results": 3}}', "metric_not_reported"),
        ('{"model-index": [null, {"results": [null, {"metrics": "x"}]}]}', "metric_not_reported"),
        (card("0.9"), "metric_not_a_number"),
        (card(True), "metric_not_a_number"),
        (card(float("nan")), "metric_not_a_number"),
        (card(float("inf")), "metric_not_a_number"),
        (card(10**400), "metric_not_a_number"),
        (card(93.5), "metric_out_of_bounds"),
        (card(-0.1), "metric_out_of_bounds"),
    ],
)
def test_a_card_that_cannot_be_used_becomes_a_counted_null(text, reason):
    truth = read(text, card(0.5))
    assert truth.targets["accuracy"].to_list() == [None, 0.5]
    assert truth.missing.rows() == [("accuracy", reason, 1)]


def test_the_gap_follows_from_two_accuracies_when_it_is_not_reported():
    metrics = [{"type": "accuracy", "value": 0.7}, {"type": "train_accuracy", "value": 0.9}]
    text = json.dumps({"model-index": [{"results": [{"metrics": metrics}]}]})
    truth = read(text, targets=("generalization_gap",))
    assert truth.targets["generalization_gap"].to_list() == pytest.approx([0.2])


def test_the_first_result_that_reports_a_metric_counts():
    results = [{"metrics": [{"type": "accuracy", "value": v}]} for v in (0.1, 0.2)]
    assert read_metrics({"model-index": [{"results": results}]}) == {"accuracy": 0.1}


def test_outcomes_and_nested_values_are_no_generating_factors():
    factors = {"accuracy": 0.9, "loss": 1.0, "nested": {"a": 1}, "list": [1], "flag": True, "lr": 1}
    assert read_factors({"generating_factors": factors}, {}) == [
        ("flag", None, "True"),
        ("lr", 1.0, None),
    ]


def test_the_number_and_length_of_factors_is_bounded():
    factors = {f"f{i}": "x" * 10_000 for i in range(1_000)} | {"y" * 1_000: 1}
    read_back = read_factors({"generating_factors": factors}, {})
    assert len(read_back) == MAX_ENTRIES
    assert all(len(text) <= 128 for _, _, text in read_back)


def test_a_card_of_the_greatest_length_is_read():
    assert parse_card(json.dumps({"a": "x" * (MAX_CARD_CHARS - 9)})) is not None
