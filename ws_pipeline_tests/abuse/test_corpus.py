"""Every hostile input is refused with its own reason, cheaply, and without a trace elsewhere."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ws_pipeline_tests.abuse.case import HARMLESS, TOKEN
from ws_pipeline_tests.abuse.corpus import CASES
from ws_pipeline_tests.abuse.raw_hub import RawHub

MAX_ALLOCATED_BYTES = 256 * 2**20
MAX_SECONDS = 5.0
"""Of processor time; and of the clock, where the machine has a core to spare."""
FIGURES = ("seconds", "cpu_seconds", "allocated_bytes", "worker_bytes")
SECRETS = (TOKEN, "5e0ff1gnedSecret", "X-Amz-Signature")


@dataclass
class Runner:
    """The process that runs cases, and the two origins that they may talk to."""

    process: subprocess.Popen[str]
    hub: RawHub
    elsewhere: RawHub
    folder: Path

    def run(self, key: str) -> dict[str, Any]:
        case = CASES[key]
        answer = case.answer
        elsewhere = self.elsewhere.url
        self.elsewhere.reset()
        self.hub.reset((lambda head: answer(head, elsewhere)) if answer else lambda _: [])
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"case": key, "endpoint": self.hub.url}) + "\n")
        self.process.stdin.flush()
        outcome: dict[str, Any] = json.loads(self.process.stdout.readline())
        return outcome


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("abuse")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HOME": str(folder)}
    with RawHub().serve() as hub, RawHub().serve() as elsewhere:
        process = subprocess.Popen(
            [sys.executable, "-m", "ws_pipeline_tests.abuse.runner", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Runner(process=process, hub=hub, elsewhere=elsewhere, folder=folder)
            assert process.stdin is not None
            process.stdin.close()


def test_the_corpus_has_at_least_150_inputs_that_are_refused() -> None:
    assert sum(case.reason != HARMLESS for case in CASES.values()) >= 150


@pytest.mark.parametrize("key", CASES)
def test_a_hostile_input_is_refused_with_its_own_reason(runner: Runner, key: str) -> None:
    outcome = runner.run(key)
    assert outcome["reason"] == CASES[key].reason, outcome.get("text")
    assert CASES[key].says in outcome["says"]
    report = os.environ.get("WS_ABUSE_REPORT")
    if report:
        with Path(report).open("a", encoding="utf-8") as file:
            kept = {
                k: outcome[k] for k in ("seconds", "cpu_seconds", "allocated_bytes", "worker_bytes")
            }
            file.write(json.dumps({"case": key, **kept, "says": outcome["says"]}) + "\n")
    is_idle = os.getloadavg()[0] < (os.cpu_count() or 1)
    assert outcome["cpu_seconds"] < MAX_SECONDS
    assert outcome["seconds"] < (MAX_SECONDS if is_idle else 4 * MAX_SECONDS)
    assert outcome["allocated_bytes"] < MAX_ALLOCATED_BYTES
    assert outcome["worker_bytes"] < MAX_ALLOCATED_BYTES
    check_nothing_got_out(runner, outcome)


def check_nothing_got_out(runner: Runner, outcome: dict[str, Any]) -> None:
    for secret in SECRETS:
        assert secret not in outcome["text"]
        assert not [line for line in outcome["logs"] if secret in line]
    assert runner.elsewhere.heads == []
    for path in outcome["written"]:
        assert path.startswith((str(runner.folder / "store"), "/dev/null")), path
    assert {path.name for path in runner.folder.iterdir()} <= {"store"}
