"""Which files of a folder make one model: an index and its shards, or safetensors files. Does I/O.

Not here: what is inside of them (``checkpoint``). An index is a stranger's: the names in it must
stay in its folder, its size and depth are bounded.
"""

from pathlib import Path, PurePosixPath
from typing import NoReturn

from ws_pipeline.bounded_json import BoundedJsonError, load_json
from ws_pipeline.errors import MissingInputError, Reason, WeightsError
from ws_pipeline.weights.header import LENGTH_BYTES
from ws_pipeline.weights.header_format import name_foreign_format

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"

MAX_INDEX_BYTES = 32 * 2**20
"""An index names every tensor once more, with its file: twice a header's cap."""
MAX_JSON_DEPTH = 64


def list_model_files(folder: Path) -> list[Path]:
    """Choose the files that make the model of a folder: an index, model.safetensors, or all."""
    indices = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if indices:
        return read_index(indices[0])
    files = sorted(file for file in folder.glob(f"*{SUFFIX}") if file.is_file())
    whole = [file for file in files if file.name == f"model{SUFFIX}"]
    if not files:
        raise MissingInputError(
            f"There is no .safetensors file in {folder}; pickled weights are not read."
        )
    return whole or files


def read_index(path: Path) -> list[Path]:
    """Return the files that a shard index names; their names must be plain, beside the index."""
    try:
        index = load_json(
            read_bounded(path, MAX_INDEX_BYTES),
            max_bytes=MAX_INDEX_BYTES,
            max_depth=MAX_JSON_DEPTH,
        )
    except BoundedJsonError as error:
        _refuse(Reason.INVALID_INDEX, f"{path.name} cannot be used: {error}.")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        _refuse(Reason.INVALID_INDEX, f"{path.name} must hold an object weight_map.")
    names = set()
    for name in weight_map.values():
        # A joined "../" would read another model's shard, or any file of the machine.
        if not isinstance(name, str) or not name.endswith(SUFFIX) or not _is_plain(name):
            _refuse(
                Reason.INVALID_INDEX,
                f"{path.name} must name safetensors files beside it, it names {str(name)[:80]!r}.",
            )
        names.add(name)
    return [path.parent / name for name in sorted(names)]


def _is_plain(name: str) -> bool:
    return PurePosixPath(name).name == name and "\\" not in name and "\0" not in name


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a file, or one byte more than ``max_bytes`` of it; MissingInputError if it cannot be."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise MissingInputError(f"{path} cannot be read: {error.strerror}.") from error


def refuse_foreign(path: Path) -> NoReturn:
    """Refuse a file that is not safetensors, and say what it is.

    Raises:
        WeightsError: ``not_safetensors``.
    """
    with path.open("rb") as file:
        found = name_foreign_format(file.read(LENGTH_BYTES))
    what = f"it is {found}" if found else "name one, or a folder that holds one"
    _refuse(Reason.NOT_SAFETENSORS, f"{path.name} must be a {SUFFIX} file; {what}.")


def _refuse(reason: Reason, message: str) -> NoReturn:
    raise WeightsError(message, reason=reason)
