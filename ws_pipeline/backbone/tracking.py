"""One training as a run in MLflow: recipe, metrics, figures, lineage. Does I/O.

What it is: a client that batches points, continues the run of an earlier attempt and logs no step
twice. What it is not: the record that counts (``history``), so a tracking server that goes away
delays points and loses none. mlflow is imported when a run is opened.

Metrics, parameters and tags go through `log_batch`: over HTTP a single call costs 22 ms.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.backbone.history import MetricPoint
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.registry import register_model
from ws_pipeline.errors import TrainingError
from ws_pipeline.experiments import experiment_id

logger = logging.getLogger(__name__)

RUN_FILE = "mlflow.json"
"""Holds the run's id in the run folder, so that a retry continues it."""

MAX_BATCH_METRICS = 1_000
MAX_BATCH_PARAMS = 100
MAX_PARAM_LENGTH = 6_000
"""MLflow 3.17's own limits (mlflow/utils/validation.py)."""

SYSTEM_PREFIX = "system/"
"""Of the metrics that MLflow's own monitor logs: CPU, memory, disk, network, GPUs."""

FLUSH_SECONDS = 5.0
"""How old a point may become before it is sent."""


class MlflowRun:
    """One run in MLflow; an observer of the training. Use :meth:`open`.

    Attributes:
        run_id: MLflow's id of the run.
        url: Where a person sees it; empty if no UI is known.
    """

    def __init__(self, client: Any, run_id: str, url: str) -> None:
        self.run_id = run_id
        self.url = url
        self._client = client
        self._points: list[MetricPoint] = []
        self._sent = _last_steps(client, run_id)
        self._flushed = time.monotonic()
        self._monitor: Any = None

    @classmethod
    def open(cls, job: TrainJob, *, tags: Mapping[str, str], corpus: pl.DataFrame) -> "MlflowRun":
        """Create the job's run, or continue the one that its folder names.

        Args:
            job: The job; its recipe becomes the parameters.
            tags: Beside those of the job: precision, device and the like.
            corpus: Rows of the snapshot; their splits are the run's data sets.

        Raises:
            TrainingError: If the tracking store does not answer or does not want the run.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            client = MlflowClient(tracking_uri=job.mlflow_tracking_uri)
            experiment = experiment_id(client, job.mlflow_tracking_uri, job.mlflow_experiment)
            run_id = _existing_run(client, job) or _create_run(client, job, experiment)
            _log_corpus(client, run_id, job, corpus)
            url = _run_url(job, experiment, run_id)
            client.update_run(run_id, status="RUNNING")
            _log_tags(client, run_id, {**_job_tags(job), **tags})
            return cls(client, run_id, url)
        except MlflowException as error:
            raise TrainingError(
                f"MLflow at {job.mlflow_tracking_uri} must take the run, but: {error.message}"
            ) from error

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Keep a point and send what has waited long enough."""
        self._points.append(MetricPoint(step=step, values=values))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def watch_system(self, uri: str) -> None:
        """Let MLflow log the machine's load beside ours, going on where an earlier attempt was."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor: Any = SystemMetricsMonitor  # untyped in mlflow 3.17
        self._monitor = monitor(self.run_id, resume_logging=True, tracking_uri=uri)
        self._monitor.start()

    def message(self, text: str) -> None:
        """Sentences go to the log, not to MLflow."""

    def replay(self, points: Sequence[MetricPoint]) -> None:
        """Take the points of earlier attempts; those that MLflow has are not sent again."""
        self._points = [*points, *self._points]

    def flush(self) -> bool:
        """Send what waits; if the store refuses, keep it for the next time and return False."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        fresh = [
            Metric(name, value, now, point.step)
            for point in self._points
            for name, value in point.values.items()
            if point.step > self._sent.get(name, -1)
        ]
        self._flushed = time.monotonic()
        try:
            for start in range(0, len(fresh), MAX_BATCH_METRICS):
                batch = fresh[start : start + MAX_BATCH_METRICS]
                self._client.log_batch(self.run_id, metrics=batch)
                self._sent |= {m.key: max(m.step, self._sent.get(m.key, -1)) for m in batch}
        except MlflowException as error:
            logger.warning("MLflow took no metrics, will try again: %s", error.message)
            return False
        self._points = []
        return True

    def figure(self, name: str, figure: Any) -> None:
        """Log a matplotlib figure as `figures/<name>.png`; a refusal costs the figure only."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_figure(self.run_id, figure, f"figures/{name}.png")
        except (MlflowException, OSError) as error:
            logger.warning("MLflow took no figure %s: %s", name, error)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Log the result as `result.json`."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_dict(self.run_id, dict(values), "result.json")
        except (MlflowException, OSError) as error:
            logger.warning("MLflow took no result.json: %s", error)

    def register(self, folder: Path, study: str, tags: Mapping[str, str]) -> None:
        """Register the model of a folder; a refusal costs the registration only."""
        from mlflow.exceptions import MlflowException

        try:
            register_model(self._client, self.run_id, folder, study=study, tags=dict(tags))
        except (MlflowException, OSError) as error:
            logger.warning("MLflow did not register the model: %s", error)

    def close(self, status: str) -> None:
        """Send what waits and end the run as FINISHED, FAILED or KILLED."""
        from mlflow.exceptions import MlflowException

        if self._monitor is not None:
            self._monitor.finish()
        if not self.flush():
            logger.warning("%d points are in metrics.jsonl only", len(self._points))
        try:
            self._client.set_terminated(self.run_id, status=status)
        except MlflowException as error:
            logger.warning("MLflow does not know that the run ended: %s", error.message)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values as (dotted name, text); lists become JSON text."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, json.dumps(value)
        else:
            yield prefix + name, str(value)


def _existing_run(client: Any, job: TrainJob) -> str | None:
    """Return the run of an earlier attempt, unless someone deleted it."""
    from mlflow.exceptions import MlflowException

    path = Path(job.out_dir) / RUN_FILE
    if not path.is_file():
        return None
    run_id = str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    return run_id if run.info.lifecycle_stage == "active" else None


def _create_run(
    client: Any,
    job: TrainJob,
    experiment: str,
) -> str:
    """Create the run with its parameters, and note its id."""
    from mlflow.entities import Param

    name = f"{job.recipe_name}-seed{job.training.seed}-{job.digest()[:8]}"
    run_id = str(client.create_run(experiment, run_name=name).info.run_id)
    path = Path(job.out_dir) / RUN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run_id": run_id, "experiment_id": experiment}), encoding="utf-8")
    values = job.recipe or json.loads(job.to_json())
    params = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in flatten(values)]
    for start in range(0, len(params), MAX_BATCH_PARAMS):
        client.log_batch(run_id, params=params[start : start + MAX_BATCH_PARAMS])
    return run_id


def _log_corpus(client: Any, run_id: str, job: TrainJob, corpus: pl.DataFrame) -> None:
    """Name the splits of the corpus as the run's inputs; doing it again changes nothing."""
    from ws_pipeline.backbone.corpus_dataset import list_inputs

    client.log_inputs(run_id, list_inputs(job.store_root, job.snapshot, corpus))


def _job_tags(job: TrainJob) -> dict[str, str]:
    return {
        "recipe": job.recipe_name,
        "recipe_digest": job.recipe_digest,
        "job_digest": job.digest(),
        "snapshot": job.snapshot,
        "out_dir": job.out_dir,
        "layout": f"{job.layout.kind} {job.layout.token_size}",
        "positions": job.backbone.position_code,
        "normalization": f"{job.backbone.normalization} / {job.loss.normalization}",
        "seed": str(job.training.seed),
        **job.tags,
    }


def _log_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _last_steps(client: Any, run_id: str) -> dict[str, int]:
    """Return the last step that MLflow has of each metric."""
    names = client.get_run(run_id).data.metrics
    return {
        name: max(metric.step for metric in client.get_metric_history(run_id, name))
        for name in names
        if not name.startswith(SYSTEM_PREFIX)
    }


def _run_url(job: TrainJob, experiment: str, run_id: str) -> str:
    """Return the run's page on the UI, or nothing if there is no UI that we know of."""
    base = job.mlflow_ui_url
    if not base and job.mlflow_tracking_uri.startswith(("http://", "https://")):
        base = job.mlflow_tracking_uri
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}" if base else ""
