"""The services of docker/compose.yaml, driven by the webserver's GraphQL while they are killed.

The tests of this file share one deployment and go on from each other, as its users do. What is
stored at the end is compared with what one undisturbed process makes of the same hub.
"""

import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from ws_pipeline.defs import operations
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.defs.processes import wait_for
from ws_pipeline_tests.deployment.conftest import FAMILIES
from ws_pipeline_tests.deployment.stack import SECRETS, Stack
from ws_pipeline_tests.deployment.trainer import (
    NUM_STEPS,
    find_folder,
    last_checkpoint,
    launchers,
    train_undisturbed,
    trainers,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = ("headers", "files", "layers", "shards")
LOOPBACK = ("127.", "::1", "::ffff:127.")


def manifests(store: Store) -> dict[str, bytes]:
    """Every manifest of a store, by key."""
    return {
        key: store.manifests.folder.read(key) for key in store.manifests.folder.keys("manifests")
    }


def open_stack_store(stack: Stack, tmp_path: Path) -> Store:
    environment = stack.environment("code")
    options = {
        "key": SECRETS["S3_KEY"],
        "secret": SECRETS["S3_SECRET"],
        "endpoint_url": environment["AWS_ENDPOINT_URL"],
    }
    return Store.open(environment["WS_STORE"], storage_options=options, cache=tmp_path / "cache")


def interrupt(stack: Stack, family: str, kill: Callable[[], None]) -> str:
    """Launch a refresh of a family, and kill something once its first step has begun."""
    run_id = stack.webserver.launch("refresh_family", family)
    wait_for(lambda: stack.webserver.has_started(run_id, "hub__headers"), seconds=60)
    assert stack.workers()
    kill()
    return run_id


def test_only_this_machine_reaches_the_services(stack: Stack) -> None:
    listening = {
        f"{process.name()} {connection.laddr.ip}:{connection.laddr.port}": connection.laddr.ip
        for process in stack.living()
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 5
    assert not {who for who, ip in listening.items() if not ip.startswith(LOOPBACK)}


def test_what_is_asked_of_a_dead_daemon_is_done_by_the_next(stack: Stack) -> None:
    stack.kill("daemon")
    for family in FAMILIES:
        stack.webserver.add_family(family)
    runs = [stack.webserver.launch("crawl_family", family) for family in FAMILIES]
    assert {stack.webserver.runs()[run]["status"] for run in runs} == {"QUEUED"}
    stack.start("daemon")
    assert [stack.webserver.finish(run)["runId"] for run in runs] == runs


def test_a_killed_webserver_and_a_killed_worker_lose_nothing(stack: Stack) -> None:
    def kill() -> None:
        stack.kill("webserver")
        for worker in stack.workers():
            worker.kill()

    run_id = interrupt(stack, "mlp", kill)
    stack.start("webserver")
    stack.wait("webserver")
    again = stack.webserver.finish(run_id)
    assert again["rootRunId"] == run_id
    assert again["runId"] != run_id


def test_a_run_that_went_down_with_its_code_server_runs_again(stack: Stack) -> None:
    def kill() -> None:
        stack.kill("code")
        wait_for(lambda: stack.workers() == [], seconds=30)

    run_id = interrupt(stack, "cnn", kill)
    stack.start("code")
    stack.wait("code")
    again = stack.webserver.finish(run_id)
    assert again["rootRunId"] == run_id
    said = " ".join(event.get("message", "") for event in stack.webserver.events(run_id))
    assert "the run went with it" in said


def test_what_is_stored_is_what_one_undisturbed_process_makes(stack: Stack, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "hub").parent.mkdir()
    (home / "hub").symlink_to(stack.folder / "data" / "hub")
    operations.refresh(home)
    expected = manifests(Store.open(home / "store"))
    found = manifests(open_stack_store(stack, tmp_path))
    assert len(expected) >= len(FAMILIES) * len(STAGES)
    assert found == expected


def test_a_killed_trainer_goes_on_from_its_checkpoint_and_makes_the_same_model(
    stack: Stack, tmp_path: Path
) -> None:
    stack.webserver.finish(stack.webserver.launch("refresh_corpus"))
    run_id = stack.webserver.launch("train_backbone", "tiny")
    wait_for(lambda: last_checkpoint(stack) > 0, seconds=240)
    for trainer in trainers(stack):
        trainer.kill()
    before = last_checkpoint(stack)
    assert before < NUM_STEPS
    wait_for(lambda: last_checkpoint(stack) > before, seconds=240)
    for launcher in launchers(stack):
        launcher.kill()
    assert stack.webserver.finish(run_id)["runId"] == run_id
    check_tries(stack, run_id)
    assert trainers(stack) == launchers(stack) == []
    folder = find_folder(stack)
    assert folder is not None
    made = (folder / "model" / "model.safetensors").read_bytes()
    assert made == train_undisturbed(stack, tmp_path)


def check_tries(stack: Stack, run_id: str) -> None:
    """Three tries in one run, two of them from a checkpoint, and one run in MLflow that ended."""
    events = stack.webserver.events(run_id)
    kinds = [event["__typename"] for event in events]
    assert kinds.count("ExecutionStepUpForRetryEvent") == 2
    said = " ".join(event.get("message", "") for event in events)
    began = [int(step) for step in re.findall(r"models from step (\d+) to", said)]
    assert began[0] == 0
    assert began == sorted(began)
    assert 0 < began[1] < began[2]
    assert "transient (internal)" in said  # SIGKILL says nothing
    uri = stack.environment("code")["MLFLOW_TRACKING_URI"]
    client = MlflowClient(tracking_uri=uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    assert [run.info.status for run in client.search_runs(ids)] == ["FINISHED"]


def test_no_secret_is_in_a_log_or_an_argument(stack: Stack) -> None:
    texts = {path.name: path.read_text(errors="replace") for path in stack.folder.glob("*.log")}
    texts |= {str(p.pid): " ".join(p.cmdline()) for p in stack.living()}
    pattern = re.compile("|".join(map(re.escape, SECRETS.values())))
    assert [name for name, text in texts.items() if pattern.search(text)] == []


def test_no_worker_is_left_over(stack: Stack) -> None:
    wait_for(lambda: stack.workers() == [], seconds=30)
