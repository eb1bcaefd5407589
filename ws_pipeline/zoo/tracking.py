"""One zoo as a run in MLflow: its config, its distributions, its report. Does I/O.

A zoo has one run, found by its config's digest: measuring it again brings that run up to date.
mlflow is imported when a run is logged. Not here: the curves of single models (the index has them);
a thousand models would be a hundred thousand points.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.errors import TrainingError
from ws_pipeline.experiments import experiment_id
from ws_pipeline.zoo.config import ZooConfig
from ws_pipeline.zoo.diversity_rows import QUANTILES

EXPERIMENT = "zoos"
DIGEST_TAG = "zoo_digest"
MAX_PARAM_LENGTH = 6_000
MAX_BATCH_METRICS = 1_000
"""MLflow 3.17's own limits (mlflow/utils/validation.py)."""
LOGGED_METRICS = frozenset(
    {"accuracy", "generalization_gap", "agreement", "kappa_of_errors", "cka", "alignment_gain"}
    | {"l2_distance", "cosine_distance", "calibration_error"}
)
"""Whose quantiles become metrics; everything is in the report's Parquet files."""


def log_zoo(
    config: ZooConfig, report: Path, table: pl.DataFrame, counts: Mapping[str, int], *, uri: str
) -> str:
    """Log a zoo's report as its run.

    Args:
        config: The zoo.
        report: Folder of the written report; all of it becomes artifacts.
        table: The diversity table.
        counts: Models, repos, parameters and the like, logged as metrics.
        uri: MLflow's tracking URI.

    Returns:
        The run's id.

    Raises:
        TrainingError: If the tracking store does not answer or does not take the run.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(tracking_uri=uri)
        run_id = _open_run(client, config, uri)
        _log_metrics(client, run_id, {**counts, **dict(_flatten_table(table))})
        client.log_artifacts(run_id, str(report))
        client.set_terminated(run_id, status="FINISHED")
    except (MlflowException, OSError) as error:
        raise TrainingError(f"MLflow at {uri} must take the zoo's run, but: {error}") from error
    return run_id


def _open_run(client: Any, config: ZooConfig, uri: str) -> str:
    """Find the run of the same config, or make one with the config as its parameters."""
    from mlflow.entities import Param, RunTag

    experiment = experiment_id(client, uri, EXPERIMENT)
    found = client.search_runs([experiment], f"tags.{DIGEST_TAG} = '{config.digest}'")
    if found:
        return str(found[0].info.run_id)
    name = f"{config.name}-{config.digest[:8]}"
    run_id = str(client.create_run(experiment, run_name=name).info.run_id)
    values = {"zoo": config.name, "owner": config.owner, "num_populations": len(config.populations)}
    for grid in config.populations:
        values[f"population.{grid.name}"] = json.dumps(asdict(grid), sort_keys=True)
    params = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in values.items()]
    tags = [RunTag("zoo", config.name), RunTag(DIGEST_TAG, config.digest)]
    client.log_batch(run_id, params=params, tags=tags)
    return run_id


def _flatten_table(table: pl.DataFrame) -> Iterator[tuple[str, float]]:
    """Yield quantiles as metrics like ``vit/digits/accuracy/median``, but for factors."""
    rows = table.filter(
        pl.col("metric").is_in(list(LOGGED_METRICS)),
        pl.col("statistic").is_in(list(QUANTILES)),
        ~pl.col("group").str.contains(": ", literal=True),
    )
    for family, group, metric, statistic, value in rows.select(
        "family", "group", "metric", "statistic", "value"
    ).iter_rows():
        yield f"{family}/{group}/{metric}/{statistic}", value


def _log_metrics(client: Any, run_id: str, values: Mapping[str, int | float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(name, float(value), now, 0) for name, value in values.items()]
    for start in range(0, len(metrics), MAX_BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_BATCH_METRICS])
