"""The command line as scripts see it: output, exit codes, one line per error."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from huggingface_hub import HfApi
from safetensors.numpy import load_file, save_file

from ws_pipeline.cli import lineage
from ws_pipeline.cli.app import INTERRUPTED, run
from ws_pipeline.cli.console import ConsoleReporter
from ws_pipeline.cli.services import Service, start_services, wait_until_up, watch
from ws_pipeline.defs import operations
from ws_pipeline.errors import Reason, WsPipelineError
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline.storage import local
from ws_pipeline_tests.hub.server_fixtures import write_repo

HEAVY = ("torch", "dagster", "polars", "mlflow", "transformers", "numpy", "starlette", "numba")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    generator = np.random.default_rng(0)
    tensors = {
        "fc.weight": generator.normal(size=(8, 6)).astype(np.float32),
        "fc.bias": generator.normal(size=8).astype(np.float32),
    }
    save_file(tensors, path)
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line that a refused call leaves on stderr."""
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error["), captured.err
    assert "Traceback" not in captured.err
    return captured.err


def test_help_starts_quickly_because_nothing_heavy_is_imported() -> None:
    script = (
        "import sys\nfrom ws_pipeline.cli import main\n"
        "try:\n    main(['--help'])\n"
        f"finally:\n    print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.rstrip().endswith("[]")
    commands = (
        "demo hub refresh inspect tokens train embed generate zoo study evaluate report ui doctor"
    )
    assert all(f" {name} " in result.stdout for name in commands.split())


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "hub serve", "hub scan", "hub ledger", "refresh", "inspect", "tokens pack"),
        *("tokens unpack", "train", "embed", "generate", "zoo train", "zoo list", "zoo publish"),
        *("study ablation", "study composition", "study hub-against-zoo"),
        *("evaluate", "report", "ui", "doctor"),
    ],
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    help_text = capsys.readouterr().out
    assert f"ws-pipeline {command}" in help_text
    assert "Examples" in help_text


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Usage: ws-pipeline" in capsys.readouterr().out


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ws-pipeline 0.")


def test_embedding_what_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "embed", "nowhere")
    assert line.startswith("error[missing_input]: There is no file or folder 'nowhere'")
    assert "check the path" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--recipe", "tinny"),
        ("evaluate", "--recipe", "tinny"),
        ("refresh", "--recipe", "tinny"),
        ("demo", "--recipe", "tinny"),
        ("embed", ".", "--out", "x.parquet", "--recipe", "tinny"),
        ("tokens", "pack", ".", "--out", "x", "--recipe", "tinny"),
    ],
)
def test_an_unknown_recipe_names_the_closest_one(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    line = refusal(capsys, *arguments)
    assert line.startswith("error[unknown_name]: There is no recipe 'tinny'")
    assert "Did you mean 'tiny'?" in line
    assert not Path(".ws").exists()


def test_an_unknown_zoo_names_the_closest_one(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "zoo", "train", "dmo")
    assert line.startswith("error[unknown_name]")
    assert "did you mean demo" in line


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refusal(capsys, "hub", "serve", str(tmp_path), "--port", str(port))
        assert line.startswith(f"error[port_in_use]: Port {port} of 127.0.0.1 is in use")
        assert "--port" in line
        line = refusal(capsys, "ui", "--mlflow-port", str(port), "--port", str(find_port()))
        assert "--mlflow-port" in line


def test_no_room_for_the_store_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "RESERVE_BYTES", 10**18)
    line = refusal(capsys, "refresh", code=1)
    assert line.startswith("error[no_space]")
    assert "--home" in line


def test_a_disk_that_fills_up_on_the_way_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x.parquet")

    monkeypatch.setattr(operations, "report", fill)
    assert refusal(capsys, "report", code=1).startswith("error[no_space]: The disk is full (x.par")


def test_a_home_that_is_a_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("a file")
    assert "taken is a file; name a folder" in refusal(capsys, "report", "--home", "taken")
    assert run(["doctor", "--quick", "--home", "taken", "--json"]) == 1
    found = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["disk"]["state"] == "fail"


def test_results_without_one_number_say_so() -> None:
    frame = pl.DataFrame(
        {
            "recipe": ["tiny", "tiny", "small"],
            "metric": ["r2", "undefined_layers", "r2"],
            "value": [None, 0.0, 0.5],
        }
    )
    assert not lineage.has_numbers(frame, "tiny")
    assert lineage.has_numbers(frame, "small")


@pytest.mark.parametrize("home", ["/proc/nothing", "taken/below"])
def test_a_home_that_cannot_be_made_is_refused(
    capsys: pytest.CaptureFixture[str], home: str
) -> None:
    Path("taken").write_text("a file")
    assert "name another one with --home" in refusal(capsys, "report", "--home", home)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("hub", "srve"), "Did you mean 'serve'? See ws-pipeline hub --help."),
        (("hub", "scan", "--famly", "x"), "--family"),
        (("--home", "x"), "Missing command. See ws-pipeline --help."),
        (("hub",), "Missing command. See ws-pipeline hub --help."),
        (("inspect",), "Missing argument 'path'. See ws-pipeline inspect --help."),
        (("train",), "Missing option '--recipe'"),
        (("train", "--recipe", "tiny", "--processes", "0"), "greater than or equal to 1"),
        (("hub", "serve", "nowhere"), "There is no folder nowhere"),
        (("hub", "ledger"), "run ws-pipeline demo or ws-pipeline hub scan first"),
        (("hub", "ledger", "--reason", "shy"), "There is no reason 'shy'; the reasons are gated,"),
        (("inspect", "nowhere"), "--endpoint https://huggingface.co"),
        (("inspect", "../etc"), "There is no file, folder or repo '../etc'"),
        (("tokens", "unpack", "nowhere", "--out", "x"), "name one that ws-pipeline tokens pack"),
        (("embed", "."), "ws-pipeline train --recipe tiny"),
        (("embed", "x", "--out", "."), "--out must be a Parquet file, '.' is a folder."),
        (("embed", ".", "--out", "x", "--backbone", "nowhere"), "There is no backbone in 'now"),
        (("embed", ".", "--out", "x", "--backbone", ".", "--recipe", "tiny"), "not both"),
        (("embed", ".", "--out", "x"), "ws-pipeline train --recipe tiny"),
        (("generate", "--like", ".", "--out", "x"), "ws-pipeline train --recipe tiny"),
        (("generate", "--like", "nowhere", "--out", "x"), "There is no file or folder 'nowhere'"),
    ],
)
def test_misuse_is_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refusal(capsys, *arguments)


def test_an_unexpected_error_names_itself_and_hides_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ZeroDivisionError("over\nhere")

    monkeypatch.setattr(operations, "report", stumble)
    line = refusal(capsys, "report", code=1)
    assert line.startswith("error[internal]: ZeroDivisionError: over here. Run again with --debug")
    for arguments in (["--debug", "report"], ["report", "--debug"]):
        with pytest.raises(ZeroDivisionError):
            run(arguments)


def test_an_interrupt_is_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(operations, "report", interrupt)
    assert run(["report"]) == INTERRUPTED == 130
    assert "Traceback" not in capsys.readouterr().err


def test_the_home_is_the_commands_own_then_the_global_one_then_the_environments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Path] = []

    def remember(home: Path, **_: object) -> Path:
        seen.append(home)
        return home

    monkeypatch.setattr(operations, "report", remember)
    names = ["own", "global", "environment"]
    own, global_, environment = (str(tmp_path / name) for name in names)
    assert run(["report"]) == 0
    monkeypatch.setenv("WS_HOME", environment)
    assert run(["report"]) == 0
    assert run(["--home", global_, "report"]) == 0
    assert run(["--home", global_, "report", "--home", own]) == 0
    assert seen == [Path.cwd() / ".ws", *(tmp_path / name for name in reversed(names))]
    assert "Report" in capsys.readouterr().out


def test_inspect_gives_the_object_of_the_contract(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    assert run(["inspect", str(checkpoint), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_params"] == 56
    assert found["num_bytes"] == 224
    assert sum(found["roles"].values()) == 56
    assert found["dtypes"] == {"F32": 56}
    weight = next(t for t in found["tensors"] if t["name"] == "fc.weight")
    expected = {"role": "linear", "shape": [8, 6], "dtype": "F32", "num_params": 48}
    assert weight == weight | expected
    assert run(["inspect", str(checkpoint)]) == 0
    assert "fc.weight" in capsys.readouterr().out


def test_inspect_takes_a_repo_of_the_homes_hub(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_repo(tmp_path / "home/hub", "lab/one")
    assert run(["--home", str(tmp_path / "home"), "inspect", "lab/one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_params"] == 30


def test_inspect_fetches_the_headers_alone_of_a_repo_behind_an_endpoint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_repo(tmp_path / "hub", "lab/one")
    (folder / "model.safetensors").unlink()
    shards = {}
    for i in range(2):
        name = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({f"fc{i}.weight": np.ones((400, 100), np.float32)}, folder / name)
        shards[f"fc{i}.weight"] = name
    index = json.dumps({"weight_map": shards})
    (folder / "model.safetensors.index.json").write_text(index)
    with serve_in_thread(tmp_path / "hub") as endpoint:
        assert run(["inspect", "lab/one", "--endpoint", endpoint, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [t["name"] for t in found["tensors"]] == ["fc0.weight", "fc1.weight"]
        assert found["num_params"] == 80_000
        assert not found["reads_values"]
        line = refusal(capsys, "inspect", "lab/two", "--endpoint", endpoint, code=1)
        assert line.startswith(f"error[not_found]: There is no repo lab/two at {endpoint}; check")
        monkeypatch.setenv("WS_HUB_ENDPOINT", endpoint)
        home = str(tmp_path / "home")
        assert run(["--home", home, "inspect", "lab/one"]) == 0
        assert "Headers only" in capsys.readouterr().out


def test_tokens_go_there_and_back_again(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    shard, again = tmp_path / "shard", tmp_path / "again.safetensors"
    assert run(["tokens", "pack", str(checkpoint), "--out", str(shard)]) == 0
    assert run(["tokens", "unpack", str(shard), "--out", str(again)]) == 0
    before, after = load_file(checkpoint), load_file(again)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_broken_checkpoint_is_refused_with_its_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "x.safetensors"
    broken.write_bytes(b"\xff\x00\x00\x00\x00\x00\x00\x00{")
    for command in (("inspect",), ("tokens", "pack", "--out", "shard")):
        line = refusal(capsys, *command, str(broken))
        assert line.startswith("error[header_truncated]")


def test_embed_writes_one_row_per_model(checkpoint: Path, tmp_path: Path) -> None:
    from ws_pipeline.backbone.config import BackboneConfig
    from ws_pipeline.backbone.model import Backbone

    backbone = tmp_path / "backbone"
    config = BackboneConfig(token_size=16, width=16, num_layers=1, num_heads=2, latent_size=4)
    Backbone(config).save_pretrained(backbone)
    copy = shutil.copytree(
        checkpoint.parent, tmp_path / "copy", ignore=lambda *_: ["backbone", "work"]
    )
    out = tmp_path / "deep" / "vectors.parquet"
    given = [str(checkpoint), str(copy)]
    command = [sys.executable, "-m", "ws_pipeline.cli", "embed", *given]
    subprocess.run([*command, "--backbone", str(backbone), "--out", str(out)], check=True)
    frame = pl.read_parquet(out)
    assert frame.columns == ["model", "embedding"]
    assert frame["model"].to_list() == given
    first, second = frame["embedding"].to_list()
    assert first == second
    assert len(first) > 0


def test_embed_names_the_nearest_models_of_the_corpus(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    from ws_pipeline.backbone.config import BackboneConfig
    from ws_pipeline.backbone.embed import embed_checkpoint
    from ws_pipeline.backbone.model import Backbone
    from ws_pipeline.defs.runs import vectors_version
    from ws_pipeline.storage.store import Store

    folder, home = tmp_path / "backbone", tmp_path / "home"
    config = BackboneConfig(token_size=16, width=16, num_layers=1, num_heads=2, latent_size=4)
    backbone = Backbone(config).eval()
    backbone.save_pretrained(folder)
    vector = np.array(embed_checkpoint(backbone, checkpoint)["embedding"])
    random = np.random.default_rng(0)
    vectors = [vector, *(random.standard_normal((3, len(vector))) * 10)]
    table = pl.DataFrame(
        {
            "repo_id": ["lab/itself", "lab/a", "lab/b", "lab/c"],
            "embedding": [each.tolist() for each in vectors],
            "representation": "backbone",
            "weights": vectors_version(folder),
        }
    )
    Store.open(home / "store").tables.write("backbone/embeddings/tiny", table)
    arguments = ["--home", str(home), "embed", str(checkpoint), "--backbone", str(folder)]
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert f"{len(vector)} numbers, nearest in the corpus:" in shown
    assert shown.index("lab/itself") < shown.index("lab/a")
    assert run([*arguments, "--json", "--neighbours", "1"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["embedding"]) == len(vector)
    assert row["neighbours"] == [{"model": "lab/itself", "similarity": pytest.approx(1.0)}]
    Store.open(home / "store").tables.write(
        "backbone/embeddings/tiny", table.with_columns(weights=pl.lit("another"))
    )
    assert run(arguments) == 0
    assert "no corpus is embedded by this backbone" in capsys.readouterr().out


def test_scan_and_ledger_tell_who_is_new_and_who_is_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    write_repo(home / "hub", "lab/one")
    write_repo(home / "hub", "lab/gated", settings={"gated": "manual"})
    assert run(["--home", str(home), "hub", "scan", "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert "2 listed in 1 families, 2 new, 0 changed; nothing written" in dry
    assert "A refresh would fetch 1 repo, " in dry
    assert "B at most; not counted: 1 gated" in dry
    assert run(["--home", str(home), "hub", "scan"]) == 0
    assert "2 listed in 1 families, 2 new, 0 changed" in capsys.readouterr().out
    assert run(["--home", str(home), "hub", "scan"]) == 0
    assert "2 listed in 1 families, 0 new, 0 changed" in capsys.readouterr().out
    assert run(["--home", str(home), "hub", "ledger", "--json"]) == 0
    rows = {row["repo_id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {"lab/one", "lab/gated"}
    assert (rows["lab/one"]["status"], rows["lab/one"]["reason"]) == ("listed", "")
    assert {len(row["revision"]) for row in rows.values()} == {40}
    assert run(["--home", str(home), "hub", "ledger"]) == 0
    table = capsys.readouterr().out
    assert "lab/one" in table
    assert "status  " in table
    line = refusal(capsys, "--home", str(home), "hub", "ledger", "--family", "vit")
    assert "There is no family 'vit' in the ledger; it has" in line


def test_zoo_list_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["zoo", "list"]) == 0
    table = capsys.readouterr().out
    assert "demo" in table
    assert " no" in table


def test_doctor_finds_what_is_broken_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    write_repo(home / "hub", "lab/one")
    (home / "store").mkdir()
    assert run(["--home", str(home), "doctor", "--quick", "--json"]) == 0
    findings = {f["what"]: f for f in json.loads(capsys.readouterr().out)}
    assert findings["hub"]["detail"].startswith("embedded, 1 repos")
    assert findings["store"]["detail"].endswith("writes and reads")
    (home / "mlflow").mkdir()
    (home / "mlflow/mlflow.db").write_bytes(b"not a database" * 100)
    endpoint = f"http://127.0.0.1:{find_port()}"
    assert run(["--home", str(home), "doctor", "--quick", "--endpoint", endpoint]) == 1
    captured = capsys.readouterr()
    assert "move that file away" in captured.out
    assert "2 of" in captured.err
    assert "checks failed: hub, mlflow" in captured.err


def test_doctor_on_a_fresh_home_makes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--quick"]) == 0
    assert "Everything that is needed works." in capsys.readouterr().out
    assert not Path(".ws").exists()


def test_steps_that_failed_are_the_commands_failure() -> None:
    good = operations.StepOutcome(asset="hub/repos", partition="bert", state="done")
    bad = operations.StepOutcome(
        asset="hub/files",
        partition="bert",
        state="failed",
        detail="The disk is full: free some.",
        reason="no_space",
    )
    lineage.raise_failures([good])
    sentence = r"1 of 2 steps failed, .*\[bert\]: The disk is full: free some\. See"
    with pytest.raises(WsPipelineError, match=sentence) as caught:
        lineage.raise_failures([good, bad])
    assert caught.value.reason is Reason.NO_SPACE


def test_progress_lists_what_was_done_and_counts_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = operations.StepOutcome(
        asset="hub/files", partition="[x]", state="done", num_rows=5, num_processed=1, num_reused=4
    )
    unchanged = operations.StepOutcome(asset="hub/repos", state="unchanged")
    failed = operations.StepOutcome(asset="tokens/shards", state="failed", detail="x: y")
    with ConsoleReporter() as reporter:
        reporter.started("hub/files [x]")
        reporter.finished(done)
        reporter.finished(unchanged)
        reporter.finished(unchanged)
        reporter.finished(failed)
        reporter.finished(failed)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "done  hub/files[[x]]  5 rows, 1 new, 4 kept  0.0 s",
        "failed  tokens/shards  0.0 s  x: y",
        "failed  tokens/shards  0.0 s  the same",
        "unchanged  2 steps",
    ]


def test_a_served_folder_is_a_hub_until_it_is_interrupted(tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "lab/one")
    (tmp_path / "hub/lab/two words").mkdir()
    command = [sys.executable, "-m", "ws_pipeline.cli", "hub", "serve", str(tmp_path / "hub")]
    process = subprocess.Popen(
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        endpoint = line.split(" at ")[1].strip()
        assert line.startswith("Serving 1 repos of ")
        models = list(HfApi(endpoint=endpoint, token=False).list_models())
        assert [model.id for model in models] == ["lab/one"]
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "left out: lab/two words is no name that a hub client can ask for\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Serve either a FOLDER or --simulate N repos."),
        (("nowhere", "--simulate", "5"), "Serve either a FOLDER or --simulate N repos."),
        (("--simulate", "5", "--faults", "7"), "The share of faults is between 0 and 1; got 7.0."),
    ],
)
def test_a_hub_is_a_folder_or_simulated(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(capsys, "hub", "serve", *arguments)


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_service(tmp_path: Path, script: str, port: int) -> Service:
    command = [sys.executable, "-c", script, str(port)]
    return Service(name="Echo", port=port, command=command, log=tmp_path / "echo.log")


LISTENS = """
import http.server, os, subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.BaseHTTPRequestHandler)
server.serve_forever()
"""


def test_services_run_until_the_block_ends_and_leave_no_child_behind(tmp_path: Path) -> None:
    service = make_service(tmp_path, LISTENS, find_port())
    with start_services([service]) as processes:
        wait_until_up([service], processes)
        group = processes[0].pid
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_services_stop_by_signal_even_where_a_shell_had_it_ignored(
    tmp_path: Path, number: signal.Signals
) -> None:
    groups: list[int] = []

    def serve_until_signalled() -> None:
        with start_services([make_service(tmp_path, LISTENS, find_port())]) as processes:
            groups.append(processes[0].pid)
            signal.raise_signal(number)

    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            serve_until_signalled()
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)
    with pytest.raises(ProcessLookupError):
        os.killpg(groups[0], 0)


def test_a_service_that_dies_is_named_with_its_log(tmp_path: Path) -> None:
    service = make_service(tmp_path, "print('why', flush=True); raise SystemExit(3)", find_port())
    with start_services([service]) as processes:
        with pytest.raises(WsPipelineError, match=r"Echo ended with code 3; .*echo\.log"):
            wait_until_up([service], processes)
        with pytest.raises(WsPipelineError, match="Echo ended"):
            watch([service], processes)
    assert service.log.read_text() == "why\n"
