import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ws_pipeline.backbone import checkpoints as module
from ws_pipeline.backbone.checkpoints import (
    CheckpointFolder,
    TrainingState,
    load_model,
    load_optimizer,
)
from ws_pipeline.backbone.config import TrainingConfig
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.optimizer import build_optimizer
from ws_pipeline.errors import NoSpaceError
from ws_pipeline_tests.backbone.tiny_corpus import TINY, make_windows


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def trained(seed: int = 0) -> tuple[Backbone, torch.optim.Optimizer]:
    backbone = Backbone(TINY, generator=torch.Generator().manual_seed(seed))
    optimizer = build_optimizer(backbone, TrainingConfig())
    step(backbone, optimizer)
    return backbone, optimizer


def step(backbone: Backbone, optimizer: torch.optim.Optimizer) -> None:
    output = backbone(*make_windows())
    output.prediction.tokens.square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def folder(tmp_path: Path, job: str = "job") -> CheckpointFolder:
    return CheckpointFolder(out_dir=tmp_path, job_digest=job)


def save(checkpoints: CheckpointFolder, step: int, *, seed: int = 0, keep: int = 2):
    backbone, optimizer = trained(seed)
    return checkpoints.save(
        TrainingState.collect(backbone, optimizer), step=step, values={"recent": [[1.5]]}, keep=keep
    )


def test_a_loaded_checkpoint_goes_on_bit_for_bit(tmp_path: Path):
    backbone, optimizer = trained()
    folder(tmp_path).save(TrainingState.collect(backbone, optimizer), step=1, values={}, keep=1)
    expected = torch.rand(3)
    step(backbone, optimizer)
    other, other_optimizer = trained(seed=9)
    newest = folder(tmp_path).newest()
    load_model(newest, other)
    load_optimizer(newest, other_optimizer)
    assert torch.equal(torch.rand(3), expected)
    step(other, other_optimizer)
    assert all(map(torch.equal, backbone.parameters(), other.parameters()))


def test_the_newest_is_found_with_its_values(tmp_path: Path):
    save(folder(tmp_path), 5)
    save(folder(tmp_path), 10)
    newest = folder(tmp_path).newest()
    assert (newest.step, newest.values) == (10, {"recent": [[1.5]]})


def test_older_ones_are_pruned(tmp_path: Path):
    for number in (5, 10, 15):
        save(folder(tmp_path), number, keep=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000000010", "step-000000015"]


def test_another_jobs_checkpoints_are_not_taken(tmp_path: Path):
    save(folder(tmp_path, "one"), 5)
    assert folder(tmp_path, "other").newest() is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.json", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str, caplog):
    save(folder(tmp_path), 5)
    damaged = save(folder(tmp_path), 10).folder / name
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert folder(tmp_path).newest().step == 5
    assert "step-000000010 is damaged" in caplog.text


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"files": {}}', '{"files": {"gone": "0"}}'])
def test_a_broken_manifest_is_passed_over(tmp_path: Path, broken: str):
    save(folder(tmp_path), 5)
    manifest = save(folder(tmp_path), 10).folder / "manifest.json"
    manifest.write_text(broken)
    assert folder(tmp_path).newest().step == 5


@pytest.mark.parametrize(
    "function", ["_write_state", "_write_json", "_digests", "publish_folder", "_flush"]
)
def test_a_kill_while_writing_loses_nothing(tmp_path: Path, monkeypatch, function: str):
    save(folder(tmp_path), 5, keep=1)

    def kill(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, function, kill)
        with pytest.raises(Killed):
            save(folder(tmp_path), 10, keep=1)
    assert folder(tmp_path).newest().step == 5
    save(folder(tmp_path), 10, keep=1)
    assert folder(tmp_path).newest().step == 10
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_kill_after_the_rename_keeps_the_new_one(tmp_path: Path, monkeypatch):
    save(folder(tmp_path), 5, keep=1)

    def kill(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "_prune", kill)
        with pytest.raises(Killed):
            save(folder(tmp_path), 10, keep=1)
    assert folder(tmp_path).newest().step == 10


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError('IoError(Os { code: 28, message: "No space left on device" })'),
    ],
)
def test_a_full_disk_says_what_to_do_and_keeps_the_old_one(tmp_path: Path, monkeypatch, error):
    save(folder(tmp_path), 5)

    def fail(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", fail)
        with pytest.raises(NoSpaceError, match="free some and run again"):
            save(folder(tmp_path), 10)
    assert folder(tmp_path).newest().step == 5


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path):
    files = {path.name for path in save(folder(tmp_path), 5).folder.iterdir()}
    assert {name.rsplit(".")[-1] for name in files} == {"json", "safetensors"}
    manifest = json.loads((tmp_path / "checkpoints/step-000000005/manifest.json").read_text())
    assert set(manifest["files"]) == files - {"manifest.json"}


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_half_of_it(tmp_path, monkeypatch):
    save(folder(tmp_path), 5)

    def die_half_way(path: Path, **_: object) -> None:
        if Path(path).name.startswith("pruned"):
            (Path(path) / "model.safetensors").unlink()
            raise Killed
        remove(path, ignore_errors=True)

    remove = module.shutil.rmtree
    monkeypatch.setattr(module.shutil, "rmtree", die_half_way)
    with pytest.raises(Killed):
        save(folder(tmp_path), 10, keep=1)
    published = sorted((tmp_path / "checkpoints").iterdir())
    assert [each.name for each in published] == ["step-000000010"]
    assert all(module.read_verified(each) for each in published)
    monkeypatch.setattr(module.shutil, "rmtree", remove)
    save(folder(tmp_path), 15, keep=1)
    assert list((tmp_path / "staging").iterdir()) == []
