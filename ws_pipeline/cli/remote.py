"""A model on a hub as a local folder that reads like the model itself, without its weights.

Each safetensors file becomes a sparse file of the true size that holds the header alone, so that
the code for local checkpoints inspects a model of any size after a few kilobytes of download.
Network and a temporary folder.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ws_pipeline.errors import HubError, MissingInputError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.weight_files import MAX_INDEX_BYTES, find_weight_files, parse_index
from ws_pipeline.weights.header import LENGTH_BYTES, read_header_bytes

REVISION = "main"
CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 8 * 2**20
"""As for a local checkpoint: the label maps of a 21k-class model are 1.5 MB."""
PREFIX_BYTES = 100_000
"""The first request; holds the whole header of 97 % of the public hub's files (huggingface_hub)."""


@contextlib.contextmanager
def fetch_headers(endpoint: str, repo_id: str) -> Iterator[Path]:
    """Yield a temporary folder with config.json, index and headers of a repo's model.

    Raises:
        HubError: The hub or the repo cannot be reached.
        RefusedError: The repo has no safetensors file, or an index that breaks the rules.
    """
    client = HubClient(endpoint, os.environ.get("HF_TOKEN"))
    revision, sizes = _list_files(client, repo_id)
    paths, index = find_weight_files(sizes)
    with tempfile.TemporaryDirectory(prefix="ws-pipeline-") as temporary:
        folder = Path(temporary)
        small = [(index, MAX_INDEX_BYTES)] if index else []
        small += [(CONFIG_NAME, MAX_CONFIG_BYTES)] if CONFIG_NAME in sizes else []
        for name, limit in small:
            data = client.read_file(repo_id, revision, name, max_bytes=limit)
            (folder / Path(name).name).write_bytes(data)
            if name == index:
                paths = sorted(set(parse_index(data, sizes).values()))
        for path in paths:
            _write_header(client, (repo_id, revision, path), folder, sizes[path])
        yield folder


def _list_files(client: HubClient, repo_id: str) -> tuple[str, dict[str, int]]:
    info = client.repo_info(repo_id, REVISION)
    try:
        sizes = {str(file["rfilename"]): int(file.get("size") or 0) for file in info["siblings"]}
        return str(info["sha"]), sizes
    except (KeyError, TypeError, ValueError, AttributeError):
        raise HubError(f"The hub's answer on {repo_id} lacks the files or the revision.") from None


def _write_header(
    client: HubClient, where: tuple[str, str, str], folder: Path, num_bytes: int
) -> None:
    if num_bytes < LENGTH_BYTES:
        raise MissingInputError(f"{where[2]} of {where[0]} is empty; look at the repo.")
    prefix = client.read_range(*where, 0, min(PREFIX_BYTES, num_bytes))
    header_bytes = read_header_bytes(prefix, file_bytes=num_bytes)
    if len(prefix) < header_bytes:
        prefix += client.read_range(*where, len(prefix), header_bytes - len(prefix))
    with (folder / Path(where[2]).name).open("wb") as file:
        file.write(prefix[:header_bytes])
        file.truncate(num_bytes)
