"""What `ws-pipeline doctor` says of MLflow: a server that answers, or a whole SQLite file."""

import os
import sqlite3
from pathlib import Path

from ws_pipeline.cli.finding import Finding
from ws_pipeline.settings import TRACKING_VARIABLE, hide_credentials

TIMEOUT_SECONDS = 5.0
SQLITE = "sqlite:///"


def check_mlflow(home: Path) -> Finding:
    """The tracking store is whole, or its server answers."""
    named = os.environ.get(TRACKING_VARIABLE) or ""
    if named.startswith(("http://", "https://")):
        return check_server(named)
    if named and not named.startswith(SQLITE):
        detail = f"{hide_credentials(named)}, which only a training asks"
        return Finding(what="mlflow", state="ok", detail=detail)
    path = Path(named.removeprefix(SQLITE)) if named else home / "mlflow" / "mlflow.db"
    if not path.is_file():
        remedy = "the first training makes it"
        return Finding(what="mlflow", state="ok", detail=f"none at {path} yet", remedy=remedy)
    return check_database(path.absolute())


def check_server(url: str) -> Finding:
    """A tracking server answers its health check."""
    import urllib.error
    import urllib.request

    shown = hide_credentials(url).rstrip("/")
    try:
        with urllib.request.urlopen(f"{shown}/health", timeout=TIMEOUT_SECONDS):  # noqa: S310 - http
            pass
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):  # it is there; a training brings its password
            detail = f"{shown} answers, and asks who is there"
            remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            return Finding(what="mlflow", state="ok", detail=detail, remedy=remedy)
        return _unreachable(shown, f"answers with {error.code}")
    except (OSError, ValueError) as error:
        return _unreachable(shown, f"does not answer ({getattr(error, 'reason', error)})")
    return Finding(what="mlflow", state="ok", detail=f"{shown} answers")


def _unreachable(url: str, detail: str) -> Finding:
    return Finding(
        what="mlflow",
        state="fail",
        detail=f"{url} {detail}",
        remedy="start it, mend MLFLOW_TRACKING_URI, or unset it to log into HOME/mlflow",
    )


def check_database(path: Path) -> Finding:
    """The SQLite file is whole."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    except sqlite3.Error as error:
        state, runs = str(error), 0
    finally:
        connection.close()
    if state == "ok":
        return Finding(what="mlflow", state="ok", detail=f"{runs} runs in {path}")
    return Finding(
        what="mlflow",
        state="fail",
        detail=f"{path}: {state}",
        remedy="move that file away; the next training starts a new one",
    )
