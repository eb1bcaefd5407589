"""Builds safetensors bytes by hand, correct ones and hostile ones. Not a test module."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.dtypes import ELEMENT_TYPES

NAMES = {np.dtype(kind.numpy_dtype): name for name, kind in ELEMENT_TYPES.items() if kind.bits >= 8}


def wrap(text: str | bytes, data: bytes = b"") -> bytes:
    """A length word, this header, these data bytes."""
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def make_file(
    tensors: dict[str, npt.NDArray[Any]], metadata: dict[str, str] | None = None
) -> bytes:
    """The bytes of a correct file, tensors in the given order."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = entry(
            NAMES[values.dtype], list(values.shape), len(data), len(data) + len(raw)
        )
        data += raw
    return wrap(json.dumps(header), data)


def write_model(
    path: Path, tensors: dict[str, npt.NDArray[Any]], metadata: dict[str, str] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_file(tensors, metadata))
    return path
