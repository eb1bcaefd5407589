"""`ws-pipeline doctor`: what works here, and what to do about the rest. Writes one blob."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ws_pipeline.cli.arguments import (
    MACHINE,
    EndpointOption,
    HomeOption,
    JsonOption,
    add_command,
    find_home,
)
from ws_pipeline.cli.console import out, print_json, print_table
from ws_pipeline.cli.doctor_mlflow import check_mlflow
from ws_pipeline.cli.doctor_settings import check_settings
from ws_pipeline.cli.finding import Finding
from ws_pipeline.cli.home import store_root
from ws_pipeline.errors import WsPipelineError

PILLARS = (
    *("torch", "huggingface_hub", "safetensors", "accelerate", "transformers"),
    *("dagster", "dagster-webserver", "dagster-pipes", "mlflow", "polars", "s3fs"),
)
MIN_FREE_BYTES = 1 * 10**9
ENOUGH_FREE_BYTES = 5 * 10**9
ENOUGH_MEMORY_BYTES = 6 * 10**9
"""What the demo may take at most."""
PROBE = b"ws-pipeline doctor\n"
INSTALL = "install it: pip install -c constraints.txt -e ."


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        doctor,
        "ws-pipeline doctor",
        "ws-pipeline doctor --endpoint https://huggingface.co --json",
        panel=MACHINE,
    )


def doctor(
    endpoint: EndpointOption = "",
    as_json: JsonOption = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the device, which imports torch.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Look at settings, versions, disk, device, hub, store and MLflow.

    Each setting comes with where it is from: an option, the environment, ws-pipeline.toml or the
    default. Exit code 1 if something has to be mended.
    """
    folder = find_home(home)
    findings = list(examine(folder, endpoint, with_device=not quick))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(
            ["", "what", "found", "what to do"],
            [(f.state, f.what, f.detail, f.remedy) for f in findings],
        )
    failed = [finding for finding in findings if finding.state == "fail"]
    if failed:
        raise WsPipelineError(
            f"{len(failed)} of {len(findings)} checks failed: "
            f"{', '.join(finding.what for finding in failed)}; do what stands beside them."
        )
    if not as_json:
        out().print("Everything that is needed works.")


def examine(home: Path, endpoint: str, *, with_device: bool) -> Iterator[Finding]:
    """Yield what there is to say about this machine and a home."""
    yield from check_settings(home, endpoint)
    yield check_python()
    yield from check_packages()
    yield check_disk(home)
    yield check_memory()
    if with_device:
        yield check_device()
    yield guard("hub", lambda: check_hub(home, endpoint))
    yield guard("store", lambda: check_store(home))
    yield guard("mlflow", lambda: check_mlflow(home))


def guard(what: str, check: Callable[[], Finding]) -> Finding:
    """Turn an error of a check into a finding."""
    try:
        return check()
    except WsPipelineError as error:
        return Finding(what=what, state="fail", detail=str(error.reason), remedy=str(error))
    except Exception as error:  # noqa: BLE001 - a doctor that dies of a symptom is none
        detail = f"{type(error).__name__}: {error}"
        return Finding(what=what, state="fail", detail=detail, remedy="see --debug of the command")


def check_python() -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return Finding(what="python", state="ok", detail=version)
    return Finding(
        what="python",
        state="fail",
        detail=version,
        remedy="use Python 3.11: make PYTHON=python3.11",
    )


def check_packages() -> Iterator[Finding]:
    """The libraries that the pipeline stands on."""
    versions: dict[str, str] = {}
    for name in PILLARS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(what=name, state="fail", detail="not installed", remedy=INSTALL)
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield Finding(what="packages", state="ok", detail=listed)
    pair = {versions.get("dagster"), versions.get("dagster-webserver")}
    if len(pair) > 1:
        yield Finding(
            what="dagster",
            state="fail",
            detail=f"dagster and dagster-webserver differ: {', '.join(map(str, pair))}",
            remedy="give both the same version: pip install -c constraints.txt -e .",
        )


def check_disk(home: Path) -> Finding:
    """Room under the home."""
    existing = next(p for p in (home, *home.parents) if p.exists())
    if not existing.is_dir():
        remedy = "name a folder with --home"
        return Finding(what="disk", state="fail", detail=f"{existing} is a file", remedy=remedy)
    if not os.access(existing, os.W_OK):
        remedy = "name a folder of yours with --home"
        return Finding(what="disk", state="fail", detail=f"{existing} is read-only", remedy=remedy)
    free = shutil.disk_usage(existing).free
    detail = f"{free / 1e9:.1f} GB free under {home}"
    if free >= ENOUGH_FREE_BYTES:
        return Finding(what="disk", state="ok", detail=detail)
    state = "fail" if free < MIN_FREE_BYTES else "warn"
    remedy = "free some space, or name a larger disk with --home"
    return Finding(what="disk", state=state, detail=detail, remedy=remedy)


def check_memory() -> Finding:
    """Memory and cores."""
    import psutil

    available = psutil.virtual_memory().available
    detail = f"{available / 1e9:.1f} GB available, {os.cpu_count()} cores"
    if available >= ENOUGH_MEMORY_BYTES:
        return Finding(what="memory", state="ok", detail=detail)
    remedy = f"the demo takes up to {ENOUGH_MEMORY_BYTES / 1e9:.0f} GB; close something"
    return Finding(what="memory", state="warn", detail=detail, remedy=remedy)


def check_device() -> Finding:
    """Where training would run."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding(what="device", state="ok", detail=", ".join(names))
    return Finding(
        what="device",
        state="ok",
        detail=f"CPU, {torch.get_num_threads()} threads",
        remedy="recipe tiny needs no more; larger ones want a GPU",
    )


def check_hub(home: Path, endpoint: str) -> Finding:
    """The hub answers a listing."""
    from ws_pipeline.hub.client import HubClient
    from ws_pipeline.hub.connection import connect_remote, find_endpoint
    from ws_pipeline.hub.retries import RetryPolicy

    once = RetryPolicy(max_attempts=1)
    url = find_endpoint(endpoint)
    if url:
        detail, remedy = f"{url} answers", ""
        next(iter(connect_remote(url, home, retries=once).list_pages(page_size=1)))
    elif (home / "hub").is_dir():
        from ws_pipeline.hub.server import serve_in_thread
        from ws_pipeline.hub.server.index import HubFolder

        with serve_in_thread(home / "hub") as served:
            next(iter(HubClient(served, retries=once).list_pages(page_size=1)))
        detail = f"embedded, {len(HubFolder(home / 'hub').repos())} repos in {home / 'hub'}"
        remedy = ""
    else:
        detail = f"embedded, nothing in {home / 'hub'} yet"
        remedy = "ws-pipeline demo fills it, or put <owner>/<name>/ folders there"
    return Finding(what="hub", state="ok", detail=detail, remedy=remedy)


def check_store(home: Path) -> Finding:
    """The store takes a blob and gives it back."""
    root = store_root(home)
    if "://" not in root and not Path(root).is_dir():
        remedy = "the first ws-pipeline demo or refresh makes it"
        return Finding(what="store", state="ok", detail=f"none at {root} yet", remedy=remedy)
    from ws_pipeline.storage.store import Store

    store = Store.open(root)
    reference = store.blobs.put_bytes(PROBE)
    if store.blobs.read(reference.sha256) != PROBE:
        return Finding(
            what="store",
            state="fail",
            detail=f"{root} gave back other bytes than it was given",
            remedy="check that disk, or name another one with --home or $WS_STORE",
        )
    return Finding(what="store", state="ok", detail=f"{root} writes and reads")
