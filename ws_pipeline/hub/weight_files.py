"""Which of a repo's files are the model, by their names alone. Pure, no I/O.

What it is: the rules for single files, sharded models, diffusers folders and adapters, and the
reasons for repos without usable weights. What it is not: a look into a file (``triage``).
"""

import re
from collections.abc import Collection
from typing import NamedTuple, NoReturn

from ws_pipeline.bounded_json import BoundedJsonError, load_json
from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.hub.listing import is_file_name

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
DIFFUSERS_INDEX = "model_index.json"

MAX_INDEX_BYTES = 32 * 1024**2
"""200,000 tensors at 100 bytes each are 20 MB."""
MAX_INDEX_DEPTH = 8
"""The format needs two; writers put notes into its metadata."""
MAX_INDEX_VALUES = 600_000
"""A name and a file for each of 200,000 tensors, and room for notes."""
MAX_SHARDS = 2048
"""The largest open models have a few hundred."""

PICKLE_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".h5", ".keras", ".joblib"}
)
"""Formats that can run code or that only their own library reads: never opened."""

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")
_VARIANT = re.compile(r"\.(fp16|bf16|fp8|non_ema|int8)\b|consolidated")


class WeightFiles(NamedTuple):
    """The files that make up the model; or, not empty, the index that names them."""

    paths: list[str]
    index_path: str = ""


def find_weight_files(names: Collection[str]) -> WeightFiles:
    """Return which files hold the model.

    Raises:
        RefusedError: ``adapter`` where the repo is a change to another model, ``pickle_only`` or
            ``no_weights`` where there is no safetensors file.
    """
    if ADAPTER_CONFIG in names or "adapter_model.safetensors" in names:
        raise RefusedError(
            "The repo holds an adapter, which is a change to another model, no model.",
            reason=Reason.ADAPTER,
        )
    if SINGLE in names:
        return WeightFiles([SINGLE])
    if INDEX in names:
        return WeightFiles([], INDEX)
    found = sorted(name for name in names if name.endswith(".safetensors"))
    plain = [name for name in found if not _VARIANT.search(name)] or found
    if DIFFUSERS_INDEX in names:
        parts = [name for name in plain if name.count("/") == 1]
        if parts:
            return WeightFiles(parts)
    return WeightFiles(_find_root_files([name for name in plain if "/" not in name], names))


def _find_root_files(root: list[str], names: Collection[str]) -> list[str]:
    """Return a complete set of numbered shards, else the first file in the root."""
    if not root:
        _refuse_without_weights(names)
    shards = [match for name in root if (match := _SHARD.fullmatch(name))]
    for first in shards:
        stem, total = first["stem"], first["total"]
        same = [m.group() for m in shards if m["stem"] == stem and m["total"] == total]
        if len(same) == int(total):
            return same
    singles = [name for name in root if not _SHARD.fullmatch(name)]
    if not singles:
        raise RefusedError(
            f"Of the shards of {shards[0]['stem'][:80]} some are missing.",
            reason=Reason.INVALID_INDEX,
        )
    return singles[:1]


def _refuse_without_weights(names: Collection[str]) -> NoReturn:
    pickles = [name for name in names if any(name.lower().endswith(s) for s in PICKLE_SUFFIXES)]
    if pickles:
        raise RefusedError(
            f"The repo's weights are only in formats that are never opened ({pickles[0][:80]}); "
            "it would need a safetensors file.",
            reason=Reason.PICKLE_ONLY,
        )
    raise RefusedError("The repo holds no safetensors file.", reason=Reason.NO_WEIGHTS)


def parse_index(data: bytes, names: Collection[str]) -> dict[str, str]:
    """Return the weight map of a sharded model's index: tensor name to file name.

    Every file has to be a plain name that the repo lists, so the map leads nowhere else.

    Raises:
        RefusedError: With ``invalid_index`` or ``unsafe_file_name``.
    """
    try:
        index = load_json(
            data, max_bytes=MAX_INDEX_BYTES, max_depth=MAX_INDEX_DEPTH, max_values=MAX_INDEX_VALUES
        )
    except BoundedJsonError as error:
        _refuse_index(f"is no usable JSON: {error}")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        _refuse_index("has no weight_map")
    for path in weight_map.values():
        if not is_file_name(path):
            raise RefusedError(
                f"The index names the file {path!r:.80}, which is no plain relative name.",
                reason=Reason.UNSAFE_FILE_NAME,
            )
    shards = set(weight_map.values())
    if len(shards) > MAX_SHARDS:
        _refuse_index(f"names {len(shards)} files, {MAX_SHARDS} are allowed")
    for path in sorted(shards):
        if path not in names or not path.endswith(".safetensors"):
            _refuse_index(f"names {path[:80]!r}, which is no safetensors file of the repo")
    return weight_map


def _refuse_index(what: str) -> NoReturn:
    raise RefusedError(f"The index of the sharded model {what}.", reason=Reason.INVALID_INDEX)
