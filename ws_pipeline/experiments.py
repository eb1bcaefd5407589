"""The MLflow experiment of a name, for everything that logs runs. Asks the tracking store."""

from pathlib import Path
from typing import Any


def experiment_id(client: Any, uri: str, name: str) -> str:
    """Return the id of an experiment, creating it; a database keeps artifacts beside itself."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        location = (database.parent / "artifacts").as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:  # another run created it in between
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
