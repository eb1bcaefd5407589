"""What a safetensors header is: its records, the bounds it has to keep, what is none. No I/O.

Not here: the parser (``header``), which is where these names are imported from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

LENGTH_BYTES = 8
METADATA_KEY = "__metadata__"

MAX_HEADER_BYTES = 16 * 2**20
"""A 49,152-tensor mixture of experts has a header of 5 MB; the format itself allows 100 MB, which
costs 19 s and 1.4 GB to parse."""
MAX_TENSORS = 200_000
"""Four times the largest mixture of experts seen."""
MAX_RANK = 8
"""Five is the highest in use (3-D convolutions), plus stacking."""
MAX_NAME_BYTES = 512
"""Real names stay below 200 bytes; file systems and tables choke on megabytes."""
MAX_DIM = 2**40
"""No axis has a trillion entries; keeps products of dimensions small before they are multiplied."""
MAX_METADATA_ENTRIES = 10_000
"""Trainers write at most a few hundred."""
MAX_DEPTH = 3
"""Header object, tensor object, shape array: the format has no deeper place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeaderLimits:
    """The caps a header has to keep; see the constants for the reasons."""

    max_header_bytes: int = MAX_HEADER_BYTES
    max_tensors: int = MAX_TENSORS
    max_rank: int = MAX_RANK
    max_name_bytes: int = MAX_NAME_BYTES
    max_dim: int = MAX_DIM
    max_metadata_entries: int = MAX_METADATA_ENTRIES


DEFAULT_LIMITS = HeaderLimits()


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """One tensor of a file: what it is and where it lies.

    Attributes:
        start: First byte, counted from the start of the data (not of the file).
        end: One past the last byte.
        num_params: Product of the shape.
        num_bytes: ``end - start``.
        file: Name of the file in its repo; empty where there is only one.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    num_params: int
    num_bytes: int
    file: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """A header that kept every rule.

    Attributes:
        tensors: In the order of their bytes in the file.
        metadata: The ``__metadata__`` strings.
        header_bytes: Where the data starts: the length word and the JSON.
        data_bytes: The rest of the file; equals the sum of the tensors' ``num_bytes``.
    """

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    header_bytes: int
    data_bytes: int


FOREIGN_FORMATS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GGUF", "a GGUF file, whose weights are mostly quantised; fetch the model it was made of"),
    (0, b"PK\x03\x04", "a zip archive, as torch.save writes; convert it with safetensors"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes; convert it with safetensors"),
    (0, b"\x93NUMPY", "a numpy array; convert it with safetensors"),
    (0, b"\x80\x02\x8a\n", "a pickle, which is never read; convert it with safetensors"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it with safetensors"),
)
"""(place, bytes, what to say). Read as a header's length each claims more than any header has."""


def name_foreign_format(raw: bytes) -> str:
    """Return what a file is that begins like ``raw``, if it is a known one of models, else ""."""
    found = (text for place, magic, text in FOREIGN_FORMATS if raw[place:].startswith(magic))
    return next(found, "")
