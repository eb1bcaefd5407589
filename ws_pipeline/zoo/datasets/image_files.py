"""Readers of the formats that image data sets come in. Does I/O; nothing is unpickled.

Each takes paths and returns uint8 images ``(rows, channels, height, width)`` and int64 labels from
0. Not here: which files a data set consists of, and its splits (``user_images``). CIFAR's Python
version is a pickle and is not read; its binary version holds the same.
"""

import gzip
import struct
from collections.abc import Sequence
from io import BytesIO
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.errors import ConfigError, MissingInputError

MAX_ARRAY_BYTES = 4 * 1024**3
"""Most bytes of images in one file: STL-10's 100,000 unlabelled ones are 2.8 GB."""
MAX_FOLDER_IMAGES = 2_000_000
"""Most files of an image folder; ImageNet has 1.3 million."""
MAX_IMAGE_PIXELS = 64 * 1024**2
"""Most pixels of one file before it is scaled down: a bomb of a few kB can unpack to terabytes."""
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm"})


class Images(NamedTuple):
    """Images uint8 ``(rows, channels, height, width)`` and labels int64 ``(rows,)``."""

    inputs: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, gzipped or not.

    Raises:
        ConfigError: When header and size do not fit each other, or the bounds.

    Source: the format's description at the end of Y. LeCun's page of MNIST: two zero bytes, a type
    (8: unsigned byte), the rank, one big-endian 32-bit size per axis, the values.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
            raise ConfigError(
                f"{path} must be an IDX file of bytes, it starts with {head.hex()!r}."
            )
        sizes = file.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise ConfigError(f"{path} must state {head[3]} sizes, it ends within them.")
        shape = struct.unpack(f">{head[3]}I", sizes)
        num_bytes = prod(shape)
        if num_bytes > MAX_ARRAY_BYTES:
            raise ConfigError(f"{path} must hold at most {MAX_ARRAY_BYTES} bytes, not {num_bytes}.")
        values = file.read(num_bytes + 1)
    if len(values) != num_bytes:
        raise ConfigError(f"{path} must hold {num_bytes} values of shape {shape}, it does not.")
    return np.frombuffer(values, np.uint8).reshape(shape)


def read_idx_pair(images: Path, labels: Path) -> Images:
    """Read grey images and their labels, each from an IDX file."""
    inputs = read_idx(images)
    if inputs.ndim != 3:
        raise ConfigError(f"{images} must have three axes, it has {inputs.ndim}.")
    return _pair(inputs[:, None], read_idx(labels).ravel(), images)


def read_cifar(*paths: Path, num_label_bytes: int) -> Images:
    """Read CIFAR's binary version: rows of label bytes, the last one counts, and 3x32x32 pixels.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    row_bytes = num_label_bytes + 3 * 32 * 32
    parts = []
    for path in paths:
        values = _read_bytes(path)
        if not len(values) or len(values) % row_bytes:
            raise ConfigError(f"{path} must be whole rows of {row_bytes} bytes, not {len(values)}.")
        parts.append(values.reshape(-1, row_bytes))
    rows = np.concatenate(parts)
    inputs = rows[:, num_label_bytes:].reshape(-1, 3, 32, 32)
    return _pair(inputs, rows[:, num_label_bytes - 1], paths[0])


def read_stl10(images: Path, labels: Path) -> Images:
    """Read STL-10's binary version: 3x96x96 pixels column by column, labels from 1.

    Source: https://cs.stanford.edu/~acoates/stl10/.
    """
    values = _read_bytes(images)
    if not len(values) or len(values) % (3 * 96 * 96):
        raise ConfigError(f"{images} must be whole images of 3x96x96, not {len(values)} bytes.")
    inputs = values.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2)
    return _pair(inputs, _read_bytes(labels).astype(np.int64) - 1, images)


def read_svhn(path: Path) -> Images:
    """Read a cropped-digits file of SVHN, a MATLAB file with X (32, 32, 3, rows) and y.

    Source: http://ufldl.stanford.edu/housenumbers/, format 2; the digit 0 has label 10 there.
    """
    from scipy.io import loadmat

    _check_size(path)
    try:
        table = loadmat(path, variable_names=["X", "y"])
        inputs, labels = table["X"].transpose(3, 2, 0, 1), table["y"].ravel()
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"{path} must be SVHN's MATLAB file with X and y: {error}") from None
    return _pair(inputs, labels.astype(np.int64) % 10, path)


def read_image_folder(folder: Path, *, size: int, labels: Sequence[str]) -> Images:
    """Read ``<label>/<file>`` below a folder, in order of names, scaled and cropped to a square.

    Args:
        folder: One split.
        size: Height and width that every image gets: its shorter side is scaled to it, the longer
            one cropped in the middle. All become RGB.
        labels: Names of the label folders, in the order of their numbers.
    """
    paths = [(index, path) for index, label in enumerate(labels) for path in _files(folder / label)]
    if len(paths) * 3 * size * size > MAX_ARRAY_BYTES or len(paths) > MAX_FOLDER_IMAGES:
        raise ConfigError(
            f"{folder} must be at most {MAX_FOLDER_IMAGES} images and {MAX_ARRAY_BYTES} bytes at "
            f"size {size}, it has {len(paths)} images."
        )
    inputs = np.empty((len(paths), 3, size, size), np.uint8)
    for row, (_, path) in zip(inputs, paths, strict=True):
        row[:] = read_image(path, size=size, name=str(path))
    return Images(inputs, np.array([index for index, _ in paths], np.int64))


def read_image(
    source: Path | BytesIO, *, size: int, name: str, mode: str = "RGB"
) -> NDArray[np.uint8]:
    """Read one image as ``(channels, size, size)``, its shorter side scaled, the longer cropped.

    Args:
        source: A file.
        size: Height and width.
        name: What an error calls it.
        mode: Pillow's name of the colours: RGB, or L for grey.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ConfigError(f"{name} must have at most {MAX_IMAGE_PIXELS} pixels.")
            square = ImageOps.fit(image.convert(mode), (size, size))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{name} must be an image that Pillow can read: {error}") from None
    values = np.asarray(square)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise MissingInputError(f"There is no file {path}.")
    if path.stat().st_size > MAX_ARRAY_BYTES:
        raise ConfigError(f"{path} must hold at most {MAX_ARRAY_BYTES} bytes.")


def _read_bytes(path: Path) -> NDArray[np.uint8]:
    _check_size(path)
    return np.fromfile(path, np.uint8)


def _pair(inputs: NDArray[np.uint8], labels: NDArray[np.integer], path: Path) -> Images:
    if len(inputs) != len(labels) or not len(labels):
        raise ConfigError(f"{path} must have a label per image: {len(inputs)}, {len(labels)}.")
    if labels.min() < 0:
        raise ConfigError(f"{path} must have labels from its lowest number on, not below.")
    return Images(np.array(inputs, np.uint8, order="C"), labels.astype(np.int64))
