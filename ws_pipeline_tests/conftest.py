"""What holds for every test: no network but loopback, no caller's environment, few threads."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ws_pipeline_tests.storage.stores import s3_server

__all__ = ["isolated_environment", "s3_server"]

# Before torch or numpy start their thread pools: tests share two cores with everything else.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")

CALLERS_VARIABLES = (
    "WS_HOME",
    "WS_STORE",
    "WS_HUB_ENDPOINT",
    "WS_RECIPE",
    "WS_PROCESSES",
    "WS_EXECUTOR",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "DAGSTER_HOME",
    "MLFLOW_TRACKING_URI",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
)


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away the caller's tokens and homes, and gives every test private ones."""
    for name in CALLERS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WS_CONFIG", os.devnull)  # no file of settings that lies about
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
