"""The same three steps in one process and in several; what every executor needs to load."""

import os
import shutil
import sys
from pathlib import Path

import dagster as dg
import pytest

from ws_pipeline.defs.build import build_defs
from ws_pipeline.defs.executors import EXECUTORS, find_executor
from ws_pipeline.errors import ConfigError
from ws_pipeline_tests.defs.steps import (
    STEPS,
    TREE,
    make_in_process,
    run_steps,
    select_families,
    stored,
)


def test_a_name_that_is_none_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="in_process, multiprocess, ray, kubernetes; got 'dask'"):
        find_executor("dask")


@pytest.mark.parametrize("name", sorted(EXECUTORS))
def test_every_executor_makes_a_code_location(name: str) -> None:
    if name in {"ray", "kubernetes"}:
        pytest.importorskip({"ray": "ray", "kubernetes": "dagster_k8s"}[name])
    definitions = build_defs(executor=name)
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def("refresh_family").executor_def == find_executor(name)


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("selected") / "home"
    select_families(home, ("mlp",), num_repos=6)
    return home


@pytest.fixture(scope="module")
def expected(selected: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    home = Path(shutil.copytree(selected, tmp_path_factory.mktemp("in-process") / "home"))
    return make_in_process(home, ("mlp",))


@pytest.fixture
def home(selected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(selected, tmp_path / "home"))
    monkeypatch.setenv("WS_HOME", str(folder))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("PYTHONPATH", TREE)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return folder


@pytest.mark.slow
def test_processes_make_the_same_bytes(
    home: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WS_EXECUTOR", "multiprocess")
    assert run_steps(home, "mlp").success
    assert len(expected) >= 6 * len(STEPS)
    assert stored(home) == expected
