"""The deployment of docker/compose.yaml as processes on loopback, over a small embedded hub."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ws_pipeline_tests.defs.small_hub import write_hub
from ws_pipeline_tests.deployment.stack import Stack, running_stack

FAMILIES = ("cnn", "mlp")
NUM_REPOS = 5


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    # Not below pytest's folder: that one is closed to the user that Postgres runs as.
    folder = Path(tempfile.mkdtemp(prefix="ws-stack-"))
    folder.chmod(0o755)
    write_hub(folder / "data" / "hub", families=FAMILIES, num_repos=NUM_REPOS)
    try:
        with running_stack(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)
