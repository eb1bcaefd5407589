"""Where things lie and whom to ask, as Dagster resources that hand out domain objects.

Belongs here: configuration to object. Does not: what is done with the objects. The environment is
read when a run needs a value, never at import: its variables (:mod:`ws_pipeline.settings`) stand in
for a field that is left empty.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field

from ws_pipeline.defs.worker import end_with_code_server
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.connection import connect_remote, find_endpoint
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline.recipes import Recipe, recipe
from ws_pipeline.settings import default_recipe
from ws_pipeline.storage.store import Store

DEFAULT_HOME = ".ws"
LOOPBACK_UI = "http://127.0.0.1:5000"
"""Where `ws-pipeline ui` serves MLflow."""


class HomeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that everything of a run lies under."""

    path: str = Field(default="", description="Empty: $WS_HOME, else ./.ws")

    def setup_for_execution(
        self,
        context: dg.InitResourceContext,  # noqa: ARG002 - its name is Dagster's
    ) -> None:
        """Tie the run's worker to its code server: every asset has this resource below it."""
        end_with_code_server()

    @property
    def folder(self) -> Path:
        """The home, absolute."""
        return Path(self.path or os.environ.get("WS_HOME") or DEFAULT_HOME).expanduser().absolute()

    @property
    def data_folder(self) -> Path:
        """Where data sets lie that do not ship with the dependencies: $WS_DATA, else home/data."""
        return Path(os.environ.get("WS_DATA") or self.folder / "data").expanduser().absolute()


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The store: a folder or an S3 prefix."""

    home: dg.ResourceDependency[HomeResource]
    root: str = Field(default="", description="Empty: $WS_STORE, else <home>/store")
    file_budget_bytes: int = Field(
        default=0,
        ge=0,
        description="Of downloaded files at a time; those whose tokens are stored go. 0: no limit",
    )

    @property
    def location(self) -> str:
        """The folder or S3 prefix."""
        return self.root or os.environ.get("WS_STORE") or str(self.home.folder / "store")

    def open(self) -> Store:
        """Open it; cheap, so each asset does."""
        return Store.open(self.location)


class HubResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The hub: a URL, or the embedded one over `<home>/hub`, served while a run lives."""

    home: dg.ResourceDependency[HomeResource]
    endpoint: str = Field(
        default="", description="Empty: $WS_HUB_ENDPOINT, else the embedded hub over <home>/hub"
    )
    served_at: str = Field(
        default="", description="Where somebody serves the embedded hub already; empty: nobody"
    )

    @contextmanager
    def yield_for_execution(
        self,
        context: dg.InitResourceContext,  # noqa: ARG002 - its name is Dagster's
    ) -> Iterator["HubResource"]:
        """Serve the embedded hub as long as the run that asked for it."""
        with open_hub(self.home.folder, self.endpoint, self.served_at) as hub:
            yield hub

    def client(self) -> HubClient:
        """A client of the hub; only while it is open, as inside a run."""
        remote = find_endpoint(self.endpoint)
        return connect_remote(remote, self.home.folder) if remote else HubClient(self.served_at)

    def book(self, store: Store) -> ScanBook:
        """What scans of this hub have stored."""
        return ScanBook.of(store, find_endpoint(self.endpoint))

    def describe_empty(self) -> str:
        """Say that the hub has no repos, and what to do."""
        remote = find_endpoint(self.endpoint)
        if remote:
            return (
                f"The hub at {remote} has no repos yet; publish some, or name another hub with "
                "--endpoint."
            )
        return (
            f"The hub at {self.home.folder / 'hub'} has no repos yet; put <owner>/<name>/ folders "
            "there, fill it by ws-pipeline zoo train demo, or name another hub with --endpoint."
        )


@contextmanager
def open_hub(home: Path, endpoint: str = "", served_at: str = "") -> Iterator[HubResource]:
    """Yield the hub, the embedded one served over `home/hub` if nobody does so yet."""
    at = HomeResource(path=str(home))
    if served_at or find_endpoint(endpoint):
        yield HubResource(home=at, endpoint=endpoint, served_at=served_at)
        return
    folder = home / "hub"
    folder.mkdir(parents=True, exist_ok=True)
    with serve_in_thread(folder) as url:
        yield HubResource(home=at, served_at=url)


class MlflowResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where training logs to. Never imports mlflow: the trainer does."""

    home: dg.ResourceDependency[HomeResource]
    tracking_uri: str = Field(
        default="", description="Empty: $MLFLOW_TRACKING_URI, else SQLite in <home>/mlflow"
    )
    experiment: str = Field(default="ws_pipeline", description="One experiment for all recipes")
    ui_url: str = Field(
        default="",
        description="Where people open MLflow, for links. Empty: the server, else loopback",
    )

    def uri(self) -> str:
        """The tracking URI; creates the folder of the embedded default."""
        named = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if named:
            return named
        folder = self.home.folder / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder / 'mlflow.db'}"

    def page(self) -> str:
        """Where people open MLflow."""
        uri = self.uri()
        is_server = uri.startswith(("http://", "https://"))
        return self.ui_url or (uri if is_server else LOOPBACK_UI)


class PolicyResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Whose selection and split policy the corpus follows: the corpus is one, recipes are many."""

    recipe: str = Field(default="", description="Empty: $WS_RECIPE, else tiny")

    @property
    def name(self) -> str:
        """Of the recipe whose policies count."""
        return self.recipe or default_recipe()

    def get(self) -> Recipe:
        """The recipe whose policies count."""
        return recipe(self.name)
