"""A model on a hub as a local folder: its headers alone, or all of it. Network, temporary folders.

Headers: each safetensors file becomes a sparse file of the true size that holds the header alone,
so that the code for local checkpoints inspects a model of any size after a few kilobytes of
download. All of it: every file is checked against the digest that the hub states, within a bound,
and is gone again when the command ends. Nothing enters the store.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ws_pipeline.cli.home import prepare_home
from ws_pipeline.errors import HubError, MissingInputError, Reason, RefusedError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.connection import connect_remote
from ws_pipeline.hub.listing import parse_detail
from ws_pipeline.hub.weight_files import MAX_INDEX_BYTES, find_weight_files, parse_index
from ws_pipeline.weights.header import LENGTH_BYTES, read_header_bytes

REVISION = "main"
CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 8 * 2**20
"""As for a local checkpoint: the label maps of a 21k-class model are 1.5 MB."""
PREFIX_BYTES = 100_000
"""The first request; holds the whole header of 97 % of the public hub's files (huggingface_hub)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteModel:
    """The files of a model at one revision.

    Attributes:
        files: As the hub states them, by path; all of the repo's.
        paths: The safetensors files of the model.
        small: Config and index, with their contents.
    """

    client: HubClient
    repo_id: str
    revision: str
    files: Mapping[str, Mapping[str, Any]]
    paths: tuple[str, ...]
    small: Mapping[str, bytes]

    @classmethod
    def open(cls, endpoint: str, repo_id: str, home: Path) -> "RemoteModel":
        """Ask a hub what a repo holds.

        Raises:
            HubError: The hub or the repo cannot be reached.
            RefusedError: The repo has no safetensors file, or an index that breaks the rules.
        """
        client = connect_remote(endpoint, home)
        try:
            info = client.repo_info(repo_id, REVISION)
        except HubError as error:
            if error.reason != Reason.NOT_FOUND:
                raise
            raise HubError(
                f"There is no repo {repo_id} at {endpoint}; check the name.", reason=error.reason
            ) from error
        revision = info.get("sha")
        if not isinstance(revision, str):
            raise HubError(f"The hub's answer on {repo_id} lacks the revision; try again later.")
        files = {file["path"]: file for file in parse_detail(info)["files"]}
        paths, index = find_weight_files(list(files))
        small = {}
        limits = {index: MAX_INDEX_BYTES} if index else {}
        limits |= {CONFIG_NAME: MAX_CONFIG_BYTES} if CONFIG_NAME in files else {}
        for name, limit in limits.items():
            small[name] = client.read_file(repo_id, revision, name, max_bytes=limit)
        if index:
            paths = sorted(set(parse_index(small[index], list(files)).values()))
        return cls(
            client=client,
            repo_id=repo_id,
            revision=revision,
            files=files,
            paths=tuple(paths),
            small=small,
        )

    @property
    def num_bytes(self) -> int:
        """What the safetensors files take."""
        return sum(int(self.files[path]["num_bytes"]) for path in self.paths)


@contextlib.contextmanager
def fetch_headers(endpoint: str, repo_id: str, home: Path) -> Iterator[Path]:
    """Yield a temporary folder with config.json, index and headers of a repo's model.

    Raises:
        HubError: The hub or the repo cannot be reached.
        RefusedError: The repo has no safetensors file, or an index that breaks the rules.
    """
    model = RemoteModel.open(endpoint, repo_id, home)
    with tempfile.TemporaryDirectory(prefix="ws-pipeline-") as temporary:
        folder = Path(temporary)
        _write_small(model, folder)
        for path in model.paths:
            _write_header(model, path, folder)
        yield folder


@contextlib.contextmanager
def fetch_model(endpoint: str, repo_id: str, home: Path, *, max_bytes: int) -> Iterator[Path]:
    """Yield a temporary folder with config.json, index and verified weights of a repo's model.

    Args:
        endpoint: URL of the hub.
        repo_id: OWNER/NAME.
        home: WS_HOME; the folder lies in it, since models are large.
        max_bytes: What the weights may take.

    Raises:
        HubError: The hub or the repo cannot be reached.
        IntegrityError: Other bytes came than the hub states.
        NoSpaceError: The disk has no room for it.
        RefusedError: ``too_large``, or as for :func:`fetch_headers`.
    """
    from ws_pipeline.storage.local import LocalFolder

    model = RemoteModel.open(endpoint, repo_id, home)
    if model.num_bytes > max_bytes:
        raise RefusedError(
            f"The weights of {repo_id} take {model.num_bytes / 1e9:.1f} GB, more than the "
            f"{max_bytes / 1e9:g} GB that are allowed; raise --max-gb to fetch them.",
            reason=Reason.TOO_LARGE,
        )
    LocalFolder(root=str(prepare_home(home))).check_space(model.num_bytes)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=home) as temporary:
        folder = Path(temporary)
        _write_small(model, folder)
        for path in model.paths:
            file = model.files[path]
            model.client.download(
                *(repo_id, model.revision, path, folder / Path(path).name),
                sha256=file["sha256"],
                blob_id=file["blob_id"],
                num_bytes=file["num_bytes"],
            )
        yield folder


def _write_small(model: RemoteModel, folder: Path) -> None:
    for name, data in model.small.items():
        (folder / Path(name).name).write_bytes(data)


def _write_header(model: RemoteModel, path: str, folder: Path) -> None:
    num_bytes = model.files[path]["num_bytes"]
    if num_bytes < LENGTH_BYTES:
        raise MissingInputError(f"{path} of {model.repo_id} is empty; look at the repo.")
    where = (model.repo_id, model.revision, path)
    prefix = model.client.read_range(*where, 0, min(PREFIX_BYTES, num_bytes))
    header_bytes = read_header_bytes(prefix, file_bytes=num_bytes)
    if len(prefix) < header_bytes:
        prefix += model.client.read_range(*where, len(prefix), header_bytes - len(prefix))
    with (folder / Path(path).name).open("wb") as file:
        file.write(prefix[:header_bytes])
        file.truncate(num_bytes)
