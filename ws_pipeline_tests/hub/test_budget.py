"""The budget of a token, in one process and in several."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ws_pipeline.hub.budget import RESERVED_REQUESTS, RateBudget, budget_path
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.retries import RetryPolicy
from ws_pipeline_tests.hub.scripted_hub import SHA, TOKEN, ScriptedHub, Sleeps


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["shared", "own"])
def budget(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[RateBudget, Clock]:
    clock = Clock()
    path = tmp_path / "budget" / "b.json" if request.param == "shared" else None
    return RateBudget(path, clock=clock), clock


def test_requests_go_out_until_the_window_is_used_up_but_for_a_reserve(
    budget: tuple[RateBudget, Clock],
) -> None:
    rate, clock = budget
    assert rate.reserve("api") == 0.0
    rate.record("api", remaining=RESERVED_REQUESTS + 3, reset_seconds=100.0)
    assert [rate.reserve("api") for _ in range(4)] == [0.0, 0.0, 0.0, 100.0]
    clock.now += 60
    assert rate.reserve("api") == 40.0
    assert rate.reserve("resolvers") == 0.0  # a window of its own
    clock.now += 41
    assert rate.reserve("api") == 0.0


def test_within_a_window_requests_under_way_stay_counted(budget: tuple[RateBudget, Clock]) -> None:
    rate, _ = budget
    rate.record("api", remaining=12, reset_seconds=100.0)
    for _ in range(5):
        rate.reserve("api")
    rate.record("api", remaining=11, reset_seconds=99.0)  # the answer to the first of the five
    assert [rate.reserve("api") for _ in range(6)] == [0.0] * 5 + [99.0]


def test_a_wait_is_never_longer_than_a_window(budget: tuple[RateBudget, Clock]) -> None:
    rate, clock = budget
    rate.record("api", remaining=0, reset_seconds=1e9)
    assert rate.reserve("api") == 330.0
    clock.now -= 10**6  # a clock that was set back
    assert rate.reserve("api") == 330.0


def test_another_process_sees_what_was_used(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    RateBudget(path).record("api", remaining=RESERVED_REQUESTS + 300, reset_seconds=300.0)
    code = """
import sys
from pathlib import Path
from ws_pipeline.hub.budget import RateBudget
budget = RateBudget(Path(sys.argv[1]))
print(sum(budget.reserve("api") == 0.0 for _ in range(200)))
"""
    command = [sys.executable, "-c", code, str(path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sent = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(sent) == 300


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"api": 3}', b'{"api": {"remaining": "x"}}'])
def test_a_damaged_file_is_an_unknown_window(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(data)
    budget = RateBudget(path)
    assert budget.reserve("api") == 0.0
    budget.record("api", remaining=0, reset_seconds=50.0)
    assert 49 < budget.reserve("api") <= 50


def test_a_token_is_not_on_the_disk(tmp_path: Path) -> None:
    path = budget_path(tmp_path, "https://huggingface.co/", TOKEN)
    assert TOKEN not in str(path)
    assert path == budget_path(tmp_path, "https://huggingface.co", TOKEN)
    assert path != budget_path(tmp_path, "https://huggingface.co", None)


def test_a_client_stops_before_the_hub_would_refuse(scripted: ScriptedHub, tmp_path: Path) -> None:
    left = 5

    def answer(_: Request) -> Response:
        nonlocal left
        left -= 1
        return JSONResponse({}, headers={"RateLimit": f'"api";r={left};t=60'})

    scripted.answer = answer
    path = tmp_path / "b.json"
    sleeps = Sleeps()
    clients = [
        HubClient(scripted.endpoint, retries=RetryPolicy(sleep=sleeps), budget=RateBudget(path))
        for _ in range(2)
    ]
    for number in range(3):
        clients[number % 2].repo_info("a/b", SHA)
    assert sleeps.seconds == []
    clients[1].repo_info("a/b", SHA)
    assert 59 < sleeps.seconds[0] <= 60
    assert set(json.loads(path.read_bytes())) == {"api"}


def test_a_pause_that_one_client_was_told_holds_for_the_others(
    scripted: ScriptedHub, tmp_path: Path
) -> None:
    answers = [Response(status_code=429, headers={"Retry-After": "30"})]
    scripted.answer = lambda _: answers.pop() if answers else JSONResponse({})
    sleeps = [Sleeps(), Sleeps()]
    for pauses in sleeps:
        budget = RateBudget(tmp_path / "b.json")
        client = HubClient(scripted.endpoint, retries=RetryPolicy(sleep=pauses), budget=budget)
        client.repo_info("a/b", SHA)
    assert 30 <= sleeps[0].seconds[0] <= 31
    assert len(sleeps[0].seconds) == 1
    assert 29 < sleeps[1].seconds[0] <= 30
