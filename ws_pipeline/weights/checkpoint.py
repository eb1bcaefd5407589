"""One model's safetensors files as one set of tensors, read one tensor at a time. Does I/O.

Not here: which files make a model (``model_files``), what a tensor is for (``roles``, ``plan``).
Files are read by position, never mapped: a mapped file that is truncated underneath kills the
process, a short read is an error with a name. Nothing is unpickled; ``config.json`` and a shard
index are the only other files that are looked at.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ws_pipeline.bounded_json import BoundedJsonError, load_json
from ws_pipeline.errors import HeaderError, MissingInputError, Reason, WeightsError
from ws_pipeline.weights.dtypes import ELEMENT_TYPES, numpy_dtype
from ws_pipeline.weights.header import (
    DEFAULT_LIMITS,
    LENGTH_BYTES,
    Header,
    HeaderLimits,
    TensorInfo,
    parse_header,
    read_header_bytes,
)
from ws_pipeline.weights.model_files import (
    INDEX_SUFFIX,
    MAX_JSON_DEPTH,
    SUFFIX,
    list_model_files,
    read_bounded,
    read_index,
    refuse_foreign,
)

CONFIG_NAME = "config.json"

MAX_CONFIG_BYTES = 8 * 2**20
"""The label maps of a 21k-class model are 1.5 MB."""
SMALL_FILE_BYTES = 2**18
"""A file up to this size is read whole when it is opened: one system call in place of two for each
tensor, which is most of the time for a model of a few thousand parameters."""
MAX_FILES = 1024
"""The largest models on hubs have a few hundred shards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFile:
    """One file of a checkpoint.

    Attributes:
        name: Path inside the repo, with forward slashes.
        path: Where the bytes are.
        header: Its parsed header.
        header_text: The header as it stands in the file, so that the file can be rebuilt.
        content: The whole file if it is a small one, else None.
    """

    name: str
    path: Path
    header: Header
    header_text: str
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """All tensors of one model; open it with :meth:`open` or :meth:`open_files`.

    Attributes:
        files: In the order of their names.
        tensors: Every tensor of every file by its name.
        config: The parsed ``config.json``; empty where there is none.
    """

    files: tuple[CheckpointFile, ...]
    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> "Checkpoint":
        """Open a safetensors file, a folder of shards with their index, or a repo folder.

        Args:
            path: A ``.safetensors`` file (a ``config.json`` beside it is read), an index, or a
                folder.

        Raises:
            MissingInputError: Nothing is there, or no safetensors file in it.
            HeaderError: A file breaks the format or our caps; the message names it.
            WeightsError: The files do not make one model.
        """
        path = Path(path)
        if path.is_dir():
            return cls.open_files([(file.name, file) for file in list_model_files(path)], path)
        if not path.is_file():
            raise MissingInputError(
                f"There is no file or folder at {path}; name a .safetensors file or a repo folder."
            )
        if path.name.endswith(INDEX_SUFFIX):
            files = read_index(path)
            return cls.open_files([(file.name, file) for file in files], path.parent)
        if path.suffix != SUFFIX:
            refuse_foreign(path)
        return cls.open_files([(path.name, path)], path.parent)

    @classmethod
    def open_files(
        cls,
        files: Sequence[tuple[str, Path]],
        config_folder: Path | None = None,
        *,
        limits: HeaderLimits = DEFAULT_LIMITS,
    ) -> "Checkpoint":
        """Open one model from (name in the repo, local path) pairs, wherever the bytes lie.

        Args:
            files: The safetensors files and, if there is one, ``config.json``; others are refused.
            config_folder: Where to look for ``config.json`` when ``files`` has none.
            limits: Caps on each header.
        """
        config_path = _find_config(files, config_folder)
        weights = sorted((name, path) for name, path in files if name.endswith(SUFFIX))
        if not weights or len(weights) > MAX_FILES:
            _refuse(
                Reason.NO_WEIGHTS if not weights else Reason.TOO_MANY_FILES,
                f"A model needs 1 to {MAX_FILES} safetensors files, {len(weights)} were given.",
            )
        opened = tuple(_open_file(name, path, limits) for name, path in weights)
        config = {} if config_path is None else read_config(config_path)
        return cls(files=opened, tensors=_merge_tensors(opened), config=config)

    @property
    def data_bytes(self) -> int:
        """Bytes of tensor data in all files, headers not counted."""
        return sum(file.header.data_bytes for file in self.files)

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read one tensor, shaped; packed sub-byte types come as their flat bytes (``uint8``).

        Raises:
            KeyError: No tensor has this name.
            WeightsError: The file is shorter than its header says.
        """
        tensor = self.tensors[name]
        flat = self.read_flat(name)
        return flat if ELEMENT_TYPES[tensor.dtype].bits < 8 else flat.reshape(tensor.shape)

    def read_flat(self, name: str, start: int = 0, count: int | None = None) -> npt.NDArray[Any]:
        """Read one tensor, or ``count`` elements of it from ``start``, as a flat, fresh array."""
        dtype = numpy_dtype(self.tensors[name].dtype)
        if count is None:
            count = self.tensors[name].num_bytes // dtype.itemsize - start
        values = np.empty(max(count, 0), dtype=dtype)
        self.read_into(name, start, values)
        return values

    def read_into(self, name: str, start: int, out: npt.NDArray[Any]) -> None:
        """Fill a flat, contiguous array of the tensor's dtype with its elements from ``start`` on.

        A buffer that is used again costs a third of a fresh one: no page has to be mapped.
        """
        self.read_runs(name, [start], out.reshape(1, -1))

    def read_runs(self, name: str, starts: Sequence[int], out: npt.NDArray[Any]) -> None:
        """Fill each row of ``out``, ``(len(starts), run)``, from its own place in the tensor."""
        tensor = self.tensors[name]
        size = tensor.num_bytes // out.itemsize
        for start in starts:
            if not 0 <= start <= start + out.shape[1] <= size:
                raise IndexError(
                    f"{name} has {size} elements, not {start} to {start + out.shape[1]}"
                )
        file = next(file for file in self.files if file.name == tensor.file)
        base = file.header.header_bytes + tensor.start
        offsets = [base + start * out.itemsize for start in starts]
        if file.content is None:
            _read_runs(file.path, offsets, out.view(np.uint8))
            return
        content = np.frombuffer(file.content, np.uint8)
        for offset, row in zip(offsets, out.view(np.uint8), strict=True):
            row[:] = content[offset : offset + row.size]


def read_config(path: Path) -> dict[str, Any]:
    """Read a ``config.json`` within bounds; WeightsError (``invalid_config``) if it breaks them."""
    try:
        config = load_json(
            read_bounded(path, MAX_CONFIG_BYTES),
            max_bytes=MAX_CONFIG_BYTES,
            max_depth=MAX_JSON_DEPTH,
        )
    except BoundedJsonError as error:
        _refuse(Reason.INVALID_CONFIG, f"{path.name} cannot be used: {error}.")
    if not isinstance(config, dict):
        _refuse(Reason.INVALID_CONFIG, f"{path.name} must hold a JSON object.")
    return config


def _find_config(files: Sequence[tuple[str, Path]], folder: Path | None) -> Path | None:
    for name, path in files:
        if name == CONFIG_NAME:
            return path
    if folder is not None and (folder / CONFIG_NAME).is_file():
        return folder / CONFIG_NAME
    return None


def _open_file(name: str, path: Path, limits: HeaderLimits) -> CheckpointFile:
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            is_small = file_bytes <= SMALL_FILE_BYTES
            raw = file.read(file_bytes if is_small else LENGTH_BYTES)
            header_bytes = read_header_bytes(
                raw[:LENGTH_BYTES], file_bytes=file_bytes, limits=limits
            )
            if not is_small:
                raw += file.read(header_bytes - LENGTH_BYTES)
        content = raw if len(raw) == file_bytes else None
        raw = raw[:header_bytes]
        parse = _parse_once if is_small else parse_header
        header = parse(raw, file_bytes=file_bytes, limits=limits)
    except FileNotFoundError as error:
        raise MissingInputError(f"The file {name} of the model is missing.") from error
    except HeaderError as error:
        raise HeaderError(f"{name}: {error}", reason=error.reason) from error
    text = raw[LENGTH_BYTES:header_bytes].decode("utf-8")
    return CheckpointFile(name=name, path=path, header=header, header_text=text, content=content)


@lru_cache(maxsize=64)
def _parse_once(raw: bytes, *, file_bytes: int, limits: HeaderLimits) -> Header:
    """Parse a header that may come again: the models of a population often share theirs."""
    return parse_header(raw, file_bytes=file_bytes, limits=limits)


def _merge_tensors(files: Sequence[CheckpointFile]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for tensor in file.header.tensors:
            if tensor.name in tensors:
                _refuse(
                    Reason.INVALID_INDEX,
                    f"The files {tensors[tensor.name].file} and {file.name} both hold "
                    f"{tensor.name!r}; name the one file that is meant.",
                )
            tensors[tensor.name] = replace(tensor, file=file.name)
    return tensors


def _read_runs(path: Path, offsets: Sequence[int], rows: npt.NDArray[np.uint8]) -> None:
    """Fill each row from its offset in the file, or say that the file is too short."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for offset, row in zip(offsets, rows, strict=True):
            view, num_done = row.data, 0
            while num_done < view.nbytes:
                num_read = os.preadv(descriptor, [view[num_done:]], offset + num_done)
                if num_read == 0:
                    _refuse(
                        Reason.HEADER_TRUNCATED,
                        f"{path.name} ends before the bytes that its header promises; "
                        "fetch it again.",
                    )
                num_done += num_read
    finally:
        os.close(descriptor)


def _refuse(reason: Reason, message: str) -> NoReturn:
    raise WeightsError(message, reason=reason)
