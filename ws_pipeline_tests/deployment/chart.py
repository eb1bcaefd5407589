"""docker/kubernetes/values.yaml as Dagster's chart hands it on: to the instance, the code server.

Follows the chart's templates (1.13): names become snake case; environment, secrets, volumes,
resources and security contexts of the code server become the context of every run.
"""

import re
from typing import Any

import yaml

from ws_pipeline_tests.deployment.compose import DOCKER

KEEP = {"env", "matchLabels", "labels", "requests", "limits"}
"""What lies below these are names of somebody's own."""


def read_values() -> dict[str, Any]:
    """The file, without what only anchors are."""
    values = yaml.safe_load((DOCKER / "kubernetes" / "values.yaml").read_text())
    return {name: value for name, value in values.items() if not name.startswith("x-")}


def snake_case(value: Any) -> Any:
    """Names of fields as Python's client has them."""
    if isinstance(value, dict):
        return {
            re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): item
            if key in KEEP
            else snake_case(item)
            for key, item in value.items()
        }
    return [snake_case(item) for item in value] if isinstance(value, list) else value


def image_name(image: dict[str, Any]) -> str:
    return f"{image['repository']}:{image['tag']}"


def launcher_config(values: dict[str, Any]) -> dict[str, Any]:
    """The configuration of `K8sRunLauncher` in dagster.yaml."""
    given = values["runLauncher"]["config"]["k8sRunLauncher"]
    return {
        "service_account_name": "ws-pipeline",
        "instance_config_map": "ws-pipeline-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "job_namespace": "models",
        "image_pull_policy": given["imagePullPolicy"],
        "load_incluster_config": given["loadInclusterConfig"],
        "env_config_maps": given["envConfigMaps"],
        "env_secrets": given["envSecrets"],
        "env_vars": given["envVars"],
        "volume_mounts": given["volumeMounts"],
        "volumes": given["volumes"],
        "security_context": given["securityContext"],
        "run_k8s_config": snake_case(given["runK8sConfig"]),
    }


def container_context(deployment: dict[str, Any]) -> dict[str, Any]:
    """What the code server is started with as `--container-context`."""
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env_vars": [f"{name}={value}" for name, value in deployment["env"].items()],
            "env_secrets": [secret["name"] for secret in deployment["envSecrets"]],
            "volumes": deployment["volumes"],
            "volume_mounts": deployment["volumeMounts"],
            "resources": deployment["resources"],
            "security_context": deployment["securityContext"],
            "run_k8s_config": {
                "pod_spec_config": {
                    "security_context": snake_case(deployment["podSecurityContext"])
                }
            },
        }
    }


def instance_config(values: dict[str, Any]) -> dict[str, Any]:
    """The parts of dagster.yaml that say how many run at once, and what follows a lost pod."""
    daemon, limits = values["dagsterDaemon"], values["concurrency"]
    return {
        "concurrency": {
            "pools": snake_case(limits["pools"]),
            "runs": {
                "max_concurrent_runs": limits["runs"]["maxConcurrentRuns"],
                "tag_concurrency_limits": limits["runs"]["tagConcurrencyLimits"],
            },
        },
        "run_monitoring": snake_case(daemon["runMonitoring"]),
        "run_retries": snake_case(daemon["runRetries"]),
        "sensors": snake_case(daemon["sensors"]),
        "retention": snake_case({"sensor": values["retention"]["sensor"]}),
        "telemetry": values["telemetry"],
    }
