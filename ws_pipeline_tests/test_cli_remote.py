"""Models of a hub that were never crawled, as the command line embeds and inspects them."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.backbone.config import BackboneConfig
from ws_pipeline.backbone.model import untrained
from ws_pipeline.cli.app import run
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline_tests.backbone.tiny_corpus import write_model


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "hub" / "owner" / "model"
    write_model(folder, seed=0)
    return folder


@pytest.fixture
def endpoint(repo: Path) -> Iterator[str]:
    (repo.parent / "empty").mkdir()
    (repo.parent / "empty" / "README.md").write_text("nothing")
    with serve_in_thread(repo.parents[1]) as url:
        yield url


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    folder = tmp_path / "backbone"
    config = BackboneConfig(token_size=8, width=24, num_layers=1, num_heads=2, latent_size=6)
    untrained(config, seed=0).save_pretrained(folder)
    return str(folder)


def test_a_repo_of_a_hub_is_embedded_like_its_file_and_leaves_nothing(
    endpoint: str, repo: Path, backbone: str, tmp_path: Path
) -> None:
    home, vectors = tmp_path / "home", []
    for model, where in (("owner/model", ["--endpoint", endpoint]), (str(repo), [])):
        out = tmp_path / "vectors.parquet"
        given = ["--backbone", backbone, "--home", str(home), "--out", str(out)]
        assert run(["embed", model, *where, *given]) == 0
        found = pl.read_parquet(out)
        assert found["model"].to_list() == [model]
        vectors.append(found["embedding"].to_list())
    assert vectors[0] == vectors[1]
    assert {path.name for path in home.iterdir()} <= {"budget"}


def test_the_endpoint_of_the_environment_is_asked_after_paths(
    endpoint: str, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WS_HUB_ENDPOINT", endpoint)
    out, home = tmp_path / "vectors.parquet", tmp_path / "home"
    given = ["--backbone", backbone, "--home", str(home), "--out", str(out)]
    assert run(["embed", "owner/model", *given]) == 0


@pytest.mark.parametrize(
    ("model", "options", "code", "sentences"),
    [
        ("owner/model", ["--max-gb", "0.0000001"], 2, ("too_large", "raise --max-gb")),
        ("owner/nobody", [], 1, ("not_found", "owner/nobody")),
        ("owner/empty", [], 2, ("no_weights",)),
        ("a/b/c", [], 2, ("missing_input", "leave --endpoint out")),
    ],
)
def test_what_cannot_be_fetched_says_why_and_what_to_do(
    endpoint: str,
    backbone: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    options: list[str],
    code: int,
    sentences: tuple[str, ...],
) -> None:
    home = tmp_path / "home"
    given = ["--endpoint", endpoint, "--backbone", backbone, "--home", str(home), *options]
    assert run(["embed", model, *given]) == code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert all(sentence in captured.err for sentence in sentences), captured.err
    assert not list(tmp_path.glob("home/fetch-*"))


def test_a_repo_of_a_hub_is_inspected_by_its_headers(
    endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--endpoint", endpoint, "--home", str(tmp_path / "home"), "--json"]
    assert run(["inspect", "owner/model", *given]) == 0
    assert json.loads(capsys.readouterr().out)["num_params"] == 10 * 12 + 10 + 4 * 10 + 4
