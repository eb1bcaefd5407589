"""The report as an MLflow run: every number over all held-out models, and the pages. Does I/O.

The same results are logged once: a run is found again by the digest of its numbers. Not here: the
training's own run (``backbone.tracking``).
"""

import hashlib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.errors import TrainingError
from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX, RESULT_KEY, SLICE_ALL
from ws_pipeline.experiments import experiment_id

RUN_NAME = "report"
DIGEST_TAG = "results_digest"

MAX_BATCH = 1_000
"""Metrics in one request, by MLflow's API."""

_FORBIDDEN = re.compile(r"[^\w.\- /]")


def results_digest(results: pl.DataFrame) -> str:
    """Return a digest of all numbers, whatever their order."""
    text = results.sort(RESULT_KEY).write_csv(float_precision=12)
    return hashlib.sha256(text.encode()).hexdigest()


def report_metrics(results: pl.DataFrame) -> dict[str, float]:
    """Return the numbers over all held-out models under names that MLflow takes."""
    shown = results.filter(
        (pl.col("slice") == SLICE_ALL)
        & pl.col("value").is_not_null()
        & ~pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX)
    )
    parts = ("recipe", "evaluation", "target", "metric", "features")
    return {
        _FORBIDDEN.sub("-", "/".join(str(row[part]) for part in parts)): row["value"]
        for row in shown.sort(RESULT_KEY).iter_rows(named=True)
    }


def publish_report(uri: str, experiment: str, results: pl.DataFrame, pages: Sequence[Path]) -> str:
    """Log the report; return the run's id, an earlier one's if the numbers are the same.

    Raises:
        TrainingError: If the tracking store does not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    digest = results_digest(results)
    try:
        with warnings.catch_warnings():
            # MLflow 3.17's own queries use a loader strategy that SQLAlchemy 2.1 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            client = MlflowClient(tracking_uri=uri)
            experiment_key = experiment_id(client, uri, experiment)
            known = client.search_runs([experiment_key], f"tags.{DIGEST_TAG} = '{digest}'")
            if known:
                return str(known[0].info.run_id)
            return _log(client, experiment_key, results, pages, digest)
    except MlflowException as error:
        raise TrainingError(f"MLflow at {uri} must take the report: {error.message}") from error


def _log(
    client: Any, experiment_key: str, results: pl.DataFrame, pages: Sequence[Path], digest: str
) -> str:
    """Log a run; the digest is its last tag, so that half a run is never found again."""
    from mlflow.entities import Metric

    run = client.create_run(experiment_key, run_name=RUN_NAME, tags={"kind": "report"})
    run_id, at = str(run.info.run_id), int(run.info.start_time)
    metrics = [Metric(name, value, at, 0) for name, value in report_metrics(results).items()]
    for start in range(0, len(metrics), MAX_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_BATCH])
    for page in pages:
        client.log_artifact(run_id, str(page))
    client.set_tag(run_id, DIGEST_TAG, digest)
    client.set_terminated(run_id)
    return run_id
