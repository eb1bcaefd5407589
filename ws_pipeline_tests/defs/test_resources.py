"""The hub resource: what a remote hub is shown, and what is kept of its limits."""

from pathlib import Path

import dagster as dg
import pytest
from starlette.responses import JSONResponse

from ws_pipeline.defs.resources import HomeResource, HubResource
from ws_pipeline_tests.hub.scripted_hub import SHA, TOKEN, ScriptedHub


def test_a_remote_hub_is_shown_the_token_and_its_limits_are_kept_for_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with ScriptedHub().serve() as remote:
        remote.answer = lambda _: JSONResponse({}, headers={"RateLimit": '"api";r=400;t=60'})
        resource = HubResource(home=HomeResource(path=str(tmp_path)), endpoint=remote.endpoint)
        with resource.yield_for_execution(dg.build_init_resource_context()) as hub:
            hub.client().repo_info("a/b", SHA)
    assert remote.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    (kept,) = (tmp_path / "budget").iterdir()
    assert '"remaining": 400' in kept.read_text()
    assert TOKEN not in kept.name + kept.read_text()


def test_the_embedded_hub_needs_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("WS_HUB_ENDPOINT", raising=False)
    resource = HubResource(home=HomeResource(path=str(tmp_path)))
    with resource.yield_for_execution(dg.build_init_resource_context()) as hub:
        assert list(hub.client().list_models()) == []
    assert not (tmp_path / "budget").exists()
