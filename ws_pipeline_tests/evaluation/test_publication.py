from pathlib import Path

import polars as pl
import pytest
from mlflow.tracking import MlflowClient

from ws_pipeline.evaluation.publication import publish_report, report_metrics, results_digest
from ws_pipeline.evaluation.results import RESULT_SCHEMA


@pytest.fixture
def results() -> pl.DataFrame:
    base = {"recipe": "tiny", "evaluation": "properties", "target": "accuracy", "slice": "all"}
    rows = [
        base | {"features": name, "metric": metric, "value": value, "num_models": 9, "seed": 0}
        for name, metric, value in (
            ("backbone@boosted", "r2", 0.5),
            ("backbone", "r2", None),
            ("backbone|mean", "r2_difference", 0.4),
        )
    ]
    return pl.DataFrame(rows, schema=RESULT_SCHEMA)


def test_metrics_have_names_that_mlflow_takes(results):
    assert report_metrics(results) == {"tiny/properties/accuracy/r2/backbone-boosted": 0.5}


def test_the_digest_is_of_the_numbers_not_of_their_order(results):
    assert results_digest(results.reverse()) == results_digest(results)
    moved = results.with_columns(value=pl.col("value") + 1e-6)
    assert results_digest(moved) != results_digest(results)


def test_the_same_numbers_are_logged_once_with_their_page(tmp_path: Path, results):
    page = tmp_path / "report.html"
    page.write_text("<p>numbers</p>")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = publish_report(uri, "study", results, [page])
    assert publish_report(uri, "study", results, [page]) == first
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(first)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == report_metrics(results)
    assert [each.path for each in client.list_artifacts(first)] == ["report.html"]
    moved = results.with_columns(value=pl.col("value") + 1)
    assert publish_report(uri, "study", moved, [page]) != first
