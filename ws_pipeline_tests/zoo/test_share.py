"""Two real processes under Accelerate train what one trains."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ws_pipeline.defs import zoo_operations
from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.share import train_share
from ws_pipeline.zoo.stack import CPU
from ws_pipeline.zoo.train import train_zoo


def repos(home: Path) -> dict[str, bytes]:
    folder = home / "hub"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "datasets" not in path.relative_to(folder).parts
    }


@pytest.mark.slow
def test_two_processes_publish_what_one_does(tmp_path: Path) -> None:
    zoo_operations.train(tmp_path / "one", name="tiny")
    made = zoo_operations.train(tmp_path / "two", name="tiny", num_processes=2)
    assert made.num_models == 9
    published = repos(tmp_path / "one")
    assert len(published) == 27
    assert repos(tmp_path / "two") == published


def test_what_processes_left_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = zoo_config("tiny")
    barrier = threading.Barrier(2)

    def train(index: int) -> None:
        train_share(
            config,
            tmp_path,
            index=index,
            count=2,
            wait=barrier.wait,
            device=CPU,
            show_progress=False,
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, range(2)))
    monkeypatch.setattr("ws_pipeline.zoo.train.train_stack", lambda *_, **__: pytest.fail("again"))
    summary = train_zoo(config, tmp_path)
    assert (summary.num_trained, summary.num_diverged, summary.num_models) == (8, 0, 9)
