"""A home with a small hub, before and after its first refresh; an instance that forgets."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ws_pipeline.defs import operations
from ws_pipeline.defs.operations import RefreshResult
from ws_pipeline_tests.defs.small_hub import write_hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose hub holds three repos of two families."""
    folder = tmp_path / "home"
    write_hub(folder / "hub")
    return folder


@pytest.fixture(scope="session")
def first_refresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RefreshResult]:
    """A home that was refreshed once, and what that said; look, do not touch."""
    folder = tmp_path_factory.mktemp("refreshed") / "home"
    write_hub(folder / "hub")
    return folder, operations.refresh(folder)


@pytest.fixture
def refreshed(first_refresh: tuple[Path, RefreshResult], tmp_path: Path) -> Path:
    """A copy of the refreshed home, to do anything with: a home holds no absolute path."""
    return Path(shutil.copytree(first_refresh[0], tmp_path / "refreshed"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
