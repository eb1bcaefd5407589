"""What a shell gets when somebody presses Tab, as its own script asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.cli.app import COMPLETING, run
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.storage.store import Store
from ws_pipeline.zoo.catalog import ZOO_NAMES


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def complete(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What bash offers for the last word of a line."""
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    monkeypatch.setenv(COMPLETING, "complete_bash")
    with pytest.raises(SystemExit, match="0"):
        run([])
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ws-pipeline re", ["refresh", "report"]),
        ("ws-pipeline train --recipe s", ["small", "sane-cnn", "sane-resnet18"]),
        ("ws-pipeline embed x --recipe gen", ["generation"]),
        ("ws-pipeline evaluate --recipe tiny --recipe hub-l", ["hub-large"]),
        ("ws-pipeline zoo train ", list(ZOO_NAMES)),
        ("ws-pipeline zoo publish ti", ["tiny"]),
        ("ws-pipeline hub ledger --reason pick", ["pickle_only"]),
        ("ws-pipeline refresh --family ", []),
    ],
)
def test_names_are_completed(
    line: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert complete(line, monkeypatch, capsys) == expected


def test_families_are_those_of_the_home_that_the_line_or_the_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for home, names in {"a": ("bert", "vit"), "b": ("cnn",)}.items():
        store = Store.open(str(tmp_path / home / "store"))
        for name in names:
            store.tables.write(f"ledger/repos/{name}", pl.DataFrame({"hub_id": ["1"]}))
        assert Ledger(store=store).families() == list(names)
    line = "ws-pipeline --home a refresh --family "
    assert complete(line, monkeypatch, capsys) == ["bert", "vit"]
    line = "ws-pipeline hub ledger --home b --family "
    assert complete(line, monkeypatch, capsys) == ["cnn"]
    (tmp_path / "settings.toml").write_text('home = "a"')
    monkeypatch.setenv("WS_CONFIG", "settings.toml")
    assert complete("ws-pipeline hub scan --family v", monkeypatch, capsys) == ["vit"]


def test_a_wrong_file_of_settings_does_not_get_into_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.toml").write_text("hoome = 'x'")
    monkeypatch.setenv("WS_CONFIG", "wrong.toml")
    assert complete("ws-pipeline zoo train dem", monkeypatch, capsys) == ["demo"]


def test_completing_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("torch", "dagster", "polars", "mlflow", "transformers", "huggingface_hub")
    script = (
        "import sys\nfrom ws_pipeline.cli import main\n"
        "try:\n    main([])\n"
        f"finally:\n    print([name for name in {heavy!r} if name in sys.modules])"
    )
    for line in ("ws-pipeline train --recipe ti", "ws-pipeline refresh --family b"):
        asked = {"COMP_WORDS": line, "COMP_CWORD": "3", COMPLETING: "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **asked},
        )
        assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_its_script(shell: str) -> None:
    script = f"from ws_pipeline.cli import main\nmain(['--show-completion', '{shell}'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert COMPLETING in done.stdout
    assert "ws-pipeline" in done.stdout
