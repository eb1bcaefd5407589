"""A finished model in MLflow's registry, and the alias of its study's best. Does I/O.

Versions of one registered model are the trainings of one study (experiment). Among those of one
corpus snapshot, the one with the lowest held-out error has the alias `best`; a version of a newer
snapshot takes it over, since errors on other models do not compare.
"""

from pathlib import Path
from typing import Any

BEST = "best"
ERROR = "val_relative_error_median"
SNAPSHOT = "snapshot"
FOLDER = "model"


def register_model(
    client: Any, run_id: str, folder: Path, *, study: str, tags: dict[str, str]
) -> str:
    """Log a model folder as artifacts of its run and register it once; returns the version.

    Args:
        client: An `MlflowClient`.
        run_id: Of the training.
        folder: What ``publication`` wrote.
        study: Name of the experiment; names the registered model too.
        tags: Of the version; with `ERROR` and `SNAPSHOT` it may become the best.
    """
    from mlflow.exceptions import MlflowException

    name = f"{study}-backbone"
    known = client.search_model_versions(f"run_id='{run_id}'")
    if known:
        return str(known[0].version)
    client.log_artifacts(run_id, str(folder), FOLDER)
    try:
        client.create_registered_model(name, description=f"Backbones of the study {study}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}"
    version = client.create_model_version(name, source, run_id, tags=tags, await_creation_for=0)
    if ERROR in tags and _is_best(client, name, tags):
        client.set_registered_model_alias(name, BEST, version.version)
    return str(version.version)


def _is_best(client: Any, name: str, tags: dict[str, str]) -> bool:
    """Say whether a new version's error is below the present best's."""
    alias = client.get_registered_model(name).aliases.get(BEST)
    if alias is None:
        return True
    best = client.get_model_version(name, str(alias)).tags
    if best.get(SNAPSHOT) != tags.get(SNAPSHOT) or ERROR not in best:
        return True
    return float(tags[ERROR]) < float(best[ERROR])
