import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ws_pipeline.cli.app import run
from ws_pipeline.cli.services import find_tracking_server
from ws_pipeline.defs import operations
from ws_pipeline.defs.assets.backbone import TrainOptions
from ws_pipeline.defs.executors import EXECUTOR_VARIABLE
from ws_pipeline.defs.resources import HomeResource, MlflowResource, PolicyResource
from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.hub import connection
from ws_pipeline.settings import (
    FILE_NAME,
    FILE_VARIABLE,
    SETTINGS,
    apply_file,
    find_source,
    hide_credentials,
    read_file,
)
from ws_pipeline_tests.docs.pages import ROOT, read_blocks
from ws_pipeline_tests.docs.test_docs import table_codes


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a file of settings, and no setting in the environment."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in (FILE_VARIABLE, *(setting.variable for setting in SETTINGS)):
        monkeypatch.delenv(name, raising=False)
    return folder


def write(folder: Path, text: str) -> Path:
    path = folder / FILE_NAME
    path.write_text(text)
    return path


def remember_homes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    seen: list[Path] = []

    def report(home: Path, **_: object) -> Path:
        seen.append(home)
        return home

    monkeypatch.setattr(operations, "report", report)
    return seen


def test_an_option_wins_over_the_environment_over_the_file_over_the_default(
    work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = remember_homes(monkeypatch)
    assert run(["report"]) == 0
    write(work, 'home = "../from-file"')
    assert run(["report"]) == 0
    monkeypatch.setenv("WS_HOME", str(tmp_path / "from-environment"))
    assert run(["report"]) == 0
    assert run(["--home", str(tmp_path / "from-option"), "report"]) == 0
    names = [os.path.normpath(home) for home in seen]
    assert names == [
        str(work / ".ws"),
        *(str(tmp_path / f"from-{name}") for name in ("file", "environment", "option")),
    ]


def test_a_command_leaves_the_environment_as_it_was(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_homes(monkeypatch)
    write(work, 'home = "elsewhere"\nrecipe = "small"\nprocesses = 2')
    before = dict(os.environ)
    assert run(["report"]) == 0
    assert dict(os.environ) == before


def test_the_environments_variable_names_another_file(
    work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = remember_homes(monkeypatch)
    write(work, 'home = "not-this-one"')
    other = tmp_path / "lab.toml"
    other.write_text('home = "lab"')
    monkeypatch.setenv(FILE_VARIABLE, str(other))
    assert run(["report"]) == 0
    assert seen == [tmp_path / "lab"]  # relative to its file, not to the working directory


def test_a_named_file_that_is_not_there_is_refused(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FILE_VARIABLE, "nowhere.toml")
    assert run(["report"]) == 2
    assert capsys.readouterr().err.startswith(
        "error[missing_input]: There is no file 'nowhere.toml', which $WS_CONFIG names"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('hoome = "x"', "There is no setting 'hoome', which .* Did you mean 'home'"),
        ('WS_HOME = "x"', "There is no setting 'WS_HOME', .* Did you mean 'home'"),
        ("[hub]\nendpoint = 'x'", "There is no setting 'hub'.*The settings are home, store,"),
        ("home = 3", "home in .* has to be text in quotes; got int 3"),
        ('home = " "', "home in .* is empty; leave the line out"),
        ('processes = "2"', "processes in .* has to be an integer from 1 on; got '2'"),
        ("processes = 0", "got 0"),
        ("processes = true", "got True"),
        ("home\nstore", "is no TOML: .*line 1.* A line is: home = "),
        ("home = 'a'\nhome = 'b'\n", "is no TOML: Cannot overwrite a value"),
    ],
)
def test_what_does_not_belong_into_the_file_is_refused_in_one_sentence(
    work: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        read_file(write(work, text))
    assert FILE_NAME in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        'hf_token = "canary"',
        'aws_secret_access_key = "canary"',
        'hub_endpoint = "https://me:canary@hub.example"',
        'mlflow_tracking_uri = "postgresql://mlflow:canary@db/mlflow"',
        'hub_endpoint = "hf_canaryThatIsAToken"',
        'store = "https://s3.example/x?X-Amz-Signature=canary"',
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(work: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"is or holds a secret.* set HF_TOKEN") as refused:
        read_file(write(work, line))
    assert "canary" not in str(refused.value)


def test_bytes_that_are_no_text_are_refused(work: Path) -> None:
    path = work / FILE_NAME
    path.write_bytes(b"home = '\xff'")
    with pytest.raises(ConfigError, match="is no TOML"):
        read_file(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_file(path)


def test_help_is_there_when_the_file_is_wrong(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, "recipes = 'tiny'")
    assert run(["train", "--help"]) == 0
    assert run([]) == 0
    capsys.readouterr()
    assert run(["train"]) == 2
    assert "Did you mean 'recipe'?" in capsys.readouterr().err


def test_a_relative_path_is_from_the_files_folder_and_a_url_is_not_a_path(work: Path) -> None:
    values = read_file(write(work, 'data = "images"\nstore = "s3://lab/ws"\nhome = "~/ws"'))
    expected = {"WS_DATA": str(work / "images"), "WS_STORE": "s3://lab/ws"}
    assert values == expected | {"WS_HOME": str(Path("~/ws").expanduser())}
    assert read_file(write(work, 'store = "st"')) == {"WS_STORE": str(work / "st")}


def test_the_file_names_the_recipe_that_a_command_takes(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, 'recipe = "tinny"')
    assert run(["train"]) == 2
    assert "There is no recipe 'tinny'. Did you mean 'tiny'?" in capsys.readouterr().err
    assert run(["embed", "."]) == 2
    assert "There is no recipe 'tinny'" in capsys.readouterr().err


def test_processes_that_dagster_starts_have_the_same_settings(work: Path) -> None:
    lines = ('home = "lab"', 'recipe = "small"', "processes = 3", 'executor = "multiprocess"')
    write(work, "\n".join(lines))
    script = (
        "import json, os\nfrom ws_pipeline.definitions import defs\nfound = defs()\n"
        "from ws_pipeline.defs.assets.backbone import TrainOptions\n"
        "r = found.resources\n"
        "print(json.dumps([str(r['home'].folder), r['store'].location, r['policy'].name,"
        " TrainOptions().processes, found.executor.name, os.environ['WS_HOME']]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        check=True,
        text=True,
        env=environment,
    )
    lab = str(work / "lab")
    assert json.loads(done.stdout) == [lab, f"{lab}/store", "small", 3, "multiprocess", lab]


def test_resources_ask_the_environment_for_what_nobody_stated(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = HomeResource(path=str(work))
    assert PolicyResource().name == "tiny"
    assert TrainOptions().processes == 1
    assert MlflowResource(home=home).page() == "http://127.0.0.1:5000"
    assert find_tracking_server() == ""
    monkeypatch.setenv("WS_RECIPE", "small")
    monkeypatch.setenv("WS_PROCESSES", "4")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.lab")
    assert PolicyResource().name == "small"
    assert PolicyResource(recipe="tiny").name == "tiny"
    assert TrainOptions().processes == 4
    assert TrainOptions(num_processes=2).processes == 2
    assert MlflowResource(home=home).page() == find_tracking_server() == "http://mlflow.lab"
    monkeypatch.setenv("WS_PROCESSES", "many")
    with pytest.raises(ConfigError, match="WS_PROCESSES has to be an integer from 1 on; got 'many"):
        _ = TrainOptions().processes


def test_doctor_says_where_each_setting_comes_from(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, 'data = "images"\nrecipe = "small"\nstore = "elsewhere"')
    monkeypatch.setenv("WS_RECIPE", "tiny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:canary@db.lab/mlflow")
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    assert run(["doctor", "--quick", "--json", "--home", "here"]) == 0
    text = capsys.readouterr().out
    found = {row["what"]: row for row in json.loads(text)}
    assert found["settings"]["detail"] == str(work / FILE_NAME)
    assert found["home"]["detail"] == f"{work / 'here'}, from option"
    assert found["data"]["detail"] == f"{work / 'images'}, from {FILE_NAME}"
    assert found["recipe"]["detail"] == "tiny, from environment"
    assert found["processes"]["detail"] == "1"
    assert found["token"]["detail"] == "HF_TOKEN is set"
    assert found["mlflow_tracking_uri"]["detail"].startswith("postgresql://db.lab/mlflow")
    assert "canary" not in text


def test_doctor_finds_a_setting_that_no_command_would_take_and_a_server_that_is_down(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, 'recipe = "tinny"\nexecutor = "cloud"\nmlflow_tracking_uri = "http://127.0.0.1:9"')
    assert run(["doctor", "--quick", "--json"]) == 1
    captured = capsys.readouterr()
    found = {row["what"]: row for row in json.loads(captured.out)}
    assert "Did you mean 'tiny'?" in found["recipe"]["remedy"]
    assert "in_process" in found["executor"]["remedy"]
    assert "does not answer" in found["mlflow"]["detail"]
    assert "unset it to log into HOME/mlflow" in found["mlflow"]["remedy"]
    assert "recipe, executor, mlflow" in captured.err


def test_where_a_value_comes_from_is_forgotten_with_the_file(work: Path) -> None:
    write(work, 'data = "images"')
    names = apply_file()
    try:
        assert names == ("WS_DATA",)
        assert find_source("WS_DATA") == FILE_NAME
    finally:
        for name in names:
            del os.environ[name]
    (work / FILE_NAME).unlink()
    assert apply_file() == ()
    assert find_source("WS_DATA") == "default"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hub.example/x", "https://hub.example/x"),
        ("https://me:secret@hub.example:8443/x?sig=1", "https://hub.example:8443/x"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("/a/folder", "/a/folder"),
    ],
)
def test_a_shown_url_has_no_credentials(url: str, shown: str) -> None:
    assert hide_credentials(url) == shown


def test_variables_have_one_name_everywhere() -> None:
    variables = {setting.key: setting.variable for setting in SETTINGS}
    assert variables["hub_endpoint"] == connection.ENDPOINT_VARIABLE
    assert variables["executor"] == EXECUTOR_VARIABLE


def test_the_reference_lists_every_setting_and_its_example_holds_all_of_them(work: Path) -> None:
    page = "docs/reference/settings.md"
    assert table_codes(page) == {setting.key for setting in SETTINGS}
    (example,) = [block.text for block in read_blocks(page) if block.language == "toml"]
    assert set(tomllib.loads(example)) == {setting.key for setting in SETTINGS}
    assert set(read_file(write(work, example))) == {setting.variable for setting in SETTINGS}
    rows = (ROOT / page).read_text()
    assert all(f"`{setting.variable}`" in rows for setting in SETTINGS)


def test_no_file_is_looked_for_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ[FILE_VARIABLE] == os.devnull
    assert apply_file() == ()
    monkeypatch.setenv(FILE_VARIABLE, "nowhere")
    with pytest.raises(MissingInputError, match="There is no file 'nowhere'"):
        apply_file()
