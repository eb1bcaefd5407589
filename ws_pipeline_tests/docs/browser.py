"""Chromium without a window, on pages of loopback; the machine's own, nothing is downloaded."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP = (1280, 900)
PHONE = (390, 844)
PATIENCE_MS = 60_000
"""Pages of Dagster and MLflow draw after many requests; the machine may be busy."""


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def open_page(browser: Browser, url: str, size: tuple[int, int] = DESKTOP) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(PATIENCE_MS)
    try:
        page.goto(url)
        yield page
    finally:
        page.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve_ui(home: Path) -> Iterator[tuple[str, str]]:
    """``ws-pipeline ui`` over a home; the addresses of Dagster and MLflow."""
    ports = free_port(), free_port()
    log = (home.parent / "ui.log").open("wb")
    command = [
        *(sys.executable, "-m", "ws_pipeline.cli", "ui", "--home", str(home)),
        *("--port", str(ports[0]), "--mlflow-port", str(ports[1])),
    ]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 180
        while not all(_answers(port) for port in ports):
            assert process.poll() is None, (home.parent / "ui.log").read_text()
            assert time.monotonic() < deadline, "ws-pipeline ui did not come up"
            time.sleep(0.5)
        dagster, mlflow = (f"http://127.0.0.1:{port}" for port in ports)
        yield dagster, mlflow
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=90)
        log.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def compare_url(mlflow: str, home: Path) -> str:
    """The page of MLflow that compares all trainings of a home."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ws_pipeline").experiment_id
    trainings = client.search_runs([experiment], filter_string="tags.job_digest != ''")
    runs = [run.info.run_id for run in trainings]
    return f"{mlflow}/#/compare-runs?runs={json.dumps(runs)}&experiments=[{json.dumps(experiment)}]"
