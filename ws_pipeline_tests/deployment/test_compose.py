"""docker/: what compose itself would say of the file, and what a deployment must not get wrong."""

import json
import re
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.workspace.config_schema import process_workspace_config

from ws_pipeline_tests.deployment.compose import DOCKER, read_compose
from ws_pipeline_tests.deployment.stack import ORDER, SECRETS

PUBLISHED = {"webserver": "127.0.0.1:3000:3000", "mlflow": "127.0.0.1:5000:5000"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_compose(SECRETS)


def test_compose_accepts_the_file(compose: dict[str, Any]) -> None:
    schema = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(compose, json.loads(schema.read_text()))
    broken = {**compose, "services": {"code": {"restarts": "always"}}}
    with pytest.raises(jsonschema.ValidationError, match="restarts"):
        jsonschema.validate(broken, json.loads(schema.read_text()))


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "S3_KEY", "S3_SECRET"])
def test_no_secret_has_a_default(name: str) -> None:
    with pytest.raises(KeyError, match=f"set {name} in docker/.env"):
        read_compose({**SECRETS, name: ""})
    assert f"{name}=\n" in (DOCKER / "env.example").read_text()


def test_every_variable_is_in_the_example() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+)", text)) - {"WS_IMAGE"}
    named = set(re.findall(r"^(\w+)=", (DOCKER / "env.example").read_text(), re.MULTILINE))
    assert named == used


def test_only_the_two_pages_are_published_and_only_on_loopback(compose: dict[str, Any]) -> None:
    published = {name: s["ports"] for name, s in compose["services"].items() if "ports" in s}
    assert published == {name: [port] for name, port in PUBLISHED.items()}


def test_only_the_code_server_has_the_hubs_token(compose: dict[str, Any]) -> None:
    holders = [n for n, s in compose["services"].items() if "HF_TOKEN" in s["environment"]]
    assert holders == ["code"]


def test_no_secret_is_in_a_command(compose: dict[str, Any]) -> None:
    text = json.dumps([service.get("command") for service in compose["services"].values()])
    assert not [secret for secret in SECRETS.values() if secret in text]


def test_every_service_is_checked_and_starts_after_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == set(ORDER)
    for position, name in enumerate(ORDER):
        needs = services[name].get("depends_on", {})
        assert set(needs) <= set(ORDER[:position]), name
        for other, how in needs.items():
            is_once = "healthcheck" not in services[other]
            assert (how["condition"] == "service_completed_successfully") == is_once


def test_images_are_pinned_and_ours_has_few_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":\d[\w.-]*$", service["image"]), name
        if "build" in service:
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim", dockerfile, re.MULTILINE)
    assert dockerfile.index("USER ws") > dockerfile.index("useradd")
    assert "USER root" not in dockerfile


def test_the_image_copies_only_what_exists() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    sources = [name for line in copied for name in line.split()]
    assert len(sources) >= 5
    assert [name for name in sources if not (DOCKER.parent / name).exists()] == []


def test_dagster_accepts_instance_and_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = read_compose(SECRETS)["services"]["code"]["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    ref = InstanceRef.from_dir(str(DOCKER))
    assert ref.run_launcher_data is not None
    assert ref.run_launcher_data.class_name == "WatchedRunLauncher"
    workspace = yaml.safe_load((DOCKER / "workspace.yaml").read_text())
    assert process_workspace_config(workspace).success
