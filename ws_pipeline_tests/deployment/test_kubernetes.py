"""docker/kubernetes/values.yaml without a cluster: what dagster-k8s makes of it, what it posts."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher import LaunchRunContext
from dagster._core.test_utils import instance_for_test
from dagster_k8s import K8sRunLauncher

from ws_pipeline.defs.executors import EXECUTORS
from ws_pipeline_tests.defs.steps import STEPS, TREE, make_in_process, select_families, stored
from ws_pipeline_tests.deployment.chart import (
    container_context,
    image_name,
    instance_config,
    launcher_config,
    read_values,
)
from ws_pipeline_tests.deployment.compose import DOCKER, read_compose
from ws_pipeline_tests.deployment.kubernetes_api import KubernetesApi, serve_kubernetes
from ws_pipeline_tests.deployment.stack import SECRETS

SECRET_NAMES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DAGSTER_PG_PASSWORD"}
GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return read_values()


@pytest.fixture
def api() -> KubernetesApi:
    return KubernetesApi()


@pytest.fixture
def kubeconfig(api: KubernetesApi, tmp_path: Path) -> Iterator[Path]:
    with serve_kubernetes(tmp_path, api) as config:
        yield config


@pytest.fixture
def instance(
    values: dict[str, Any], kubeconfig: Path, tmp_path: Path
) -> Iterator[dg.DagsterInstance]:
    """An instance with the launcher and the limits of the values, whose cluster is the fake one."""
    launcher = make_launcher(values, kubeconfig)
    with instance_for_test(
        temp_dir=str(tmp_path), overrides={**instance_config(values), "run_launcher": launcher}
    ) as opened:
        yield opened


def make_launcher(values: dict[str, Any], kubeconfig: Path) -> dict[str, Any]:
    """The launcher of the values, as dagster.yaml has it, with the fake cluster."""
    here = {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    config = {**launcher_config(values), **here}
    return {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": config}


def make_location(values: dict[str, Any]) -> ReconstructableRepository:
    """The code location as the deployment's code server has it."""
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    return ReconstructableRepository.for_module(
        "ws_pipeline.definitions",
        "defs",
        TREE,
        container_image=image_name(deployment["image"]),
        container_context=container_context(deployment),
    )


def make_run(instance: dg.DagsterInstance, values: dict[str, Any]) -> dg.DagsterRun:
    """A run of the deployment's code server."""
    location = make_location(values)
    job = location.get_reconstructable_job("refresh_family")
    return instance.create_run_for_job(
        job.get_definition(),
        tags={"dagster/partition": "mlp"},
        job_code_origin=job.get_python_origin(),
    )


def test_dagster_accepts_the_limits_and_retries(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_launcher, K8sRunLauncher)
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_max_resume_run_attempts == 3
    assert instance.run_retries_max_retries == 2
    assert not instance.run_retries_retry_on_asset_or_op_failure


def test_the_limits_are_those_of_compose(values: dict[str, Any]) -> None:
    compose = yaml.safe_load((DOCKER / "dagster.yaml").read_text())
    assert instance_config(values)["concurrency"] == compose["concurrency"]
    assert (
        values["postgresql"]["postgresqlScheme"]
        == (compose["storage"]["postgres"]["postgres_db"]["scheme"])
    )


def test_every_pod_runs_without_root_and_with_bounded_memory(values: dict[str, Any]) -> None:
    (code,) = values["dagster-user-deployments"]["deployments"]
    for pod in (code, values["dagsterDaemon"], values["dagsterWebserver"]):
        assert pod["podSecurityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["securityContext"]["allowPrivilegeEscalation"] is False
        assert pod["image"] == code["image"]
        assert "memory" in pod["resources"]["limits"]
    assert values["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    assert (
        f"--uid {code['podSecurityContext']['runAsUser']} " in (DOCKER / "Dockerfile").read_text()
    )


def test_the_environment_is_that_of_compose_and_its_secrets_are_not_in_it(
    values: dict[str, Any],
) -> None:
    (code,) = values["dagster-user-deployments"]["deployments"]
    compose = read_compose(SECRETS)["services"]["code"]["environment"]
    of_the_chart = {name for name in compose if name.startswith("DAGSTER_")}
    assert set(code["env"]) | SECRET_NAMES >= set(compose) - of_the_chart
    assert not SECRET_NAMES & set(code["env"])
    assert code["env"]["WS_EXECUTOR"] in EXECUTORS
    assert code["env"]["WS_STORE"] == compose["WS_STORE"]


def test_the_job_of_a_run_is_what_was_asked_for(
    instance: dg.DagsterInstance, values: dict[str, Any], api: KubernetesApi
) -> None:
    run = make_run(instance, values)
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    (job,) = api.jobs.values()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    check_pod(pod, container)
    assert container["image"] == "ws-pipeline:0.1.0"
    assert run.run_id in " ".join(container["args"])
    assert job["spec"]["ttlSecondsAfterFinished"] == 86_400
    assert job["metadata"]["labels"]["dagster/run-id"] == run.run_id


def check_pod(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """What has to hold for a run's pod and a step's alike."""
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10_001
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == {"memory": "8Gi"}
    assert {"secretRef": {"name": "ws-pipeline"}} in container["envFrom"]
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    assert "data" in {volume["name"] for volume in pod["volumes"]}
    stated = {variable["name"]: variable for variable in container["env"]}
    assert stated["WS_STORE"]["value"].startswith("s3://")
    password = stated.pop("DAGSTER_PG_PASSWORD")["valueFrom"]["secretKeyRef"]
    assert password == {"name": "ws-pipeline-postgres", "key": "postgresql-password"}
    assert not SECRET_NAMES & set(stated)


@pytest.mark.slow
def test_steps_as_jobs_make_the_same_bytes(
    values: dict[str, Any],
    api: KubernetesApi,
    kubeconfig: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    select_families(home, ("mlp",), num_repos=6)
    expected = make_in_process(Path(shutil.copytree(home, tmp_path / "in-process")), ("mlp",))
    monkeypatch.setenv("WS_HOME", str(home))
    monkeypatch.setenv("WS_EXECUTOR", "kubernetes")
    monkeypatch.setenv("PYTHONPATH", TREE)
    api.environment = {"WS_HOME": str(home), "WS_STORE": "", "WS_HUB_ENDPOINT": ""}
    config = yaml.safe_load((home / "dagster" / "dagster.yaml").read_text())
    (home / "dagster" / "dagster.yaml").write_text(
        yaml.safe_dump({**config, "run_launcher": make_launcher(values, kubeconfig)})
    )
    location = make_location(values)
    steps = location.get_reconstructable_job("refresh_family").get_subset(
        asset_selection=frozenset(STEPS), asset_check_selection=frozenset()
    )
    per_step = {"tokens__shards": {"container_config": GPU}}
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
        done = dg.execute_job(
            steps,
            instance=instance,
            tags={"dagster/partition": "mlp"},
            run_config={"execution": {"config": {"per_step_k8s_config": per_step}}},
            raise_on_error=False,
        )
    assert done.success
    assert stored(home) == expected
    assert len(api.jobs) == len(STEPS)
    for job in api.jobs.values():
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        is_gpu = job["metadata"]["labels"]["dagster/op"] == "tokens__shards"
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == is_gpu
        if not is_gpu:
            check_pod(pod, container)
