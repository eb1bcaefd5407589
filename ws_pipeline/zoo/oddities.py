"""Repos that must not go through: a broken file, a pickle alone, NaN weights, a closed door.

What it is: four repos made from one healthy published repo, so that a demo hub holds what every
real hub holds, and the ledger's reason codes can be seen at work. What it is not: an attack corpus
(that is in the tests) or a zoo (nothing is trained). Raw bytes only; nothing is pickled or loaded.
Writes the hub folder; a file that has its bytes already is left alone, so that a second run changes
no date.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ws_pipeline.errors import MissingInputError, Reason, WeightsError
from ws_pipeline.hub.server.files import SETTINGS_NAME
from ws_pipeline.hub.server.metadata import MAX_HEADER_BYTES, parse_front_matter

WEIGHTS_NAME = "model.safetensors"
NAN_BYTES: Mapping[str, bytes] = {
    "F64": b"\x00\x00\x00\x00\x00\x00\xf8\x7f",
    "F32": b"\x00\x00\xc0\x7f",
    "F16": b"\x00\x7e",
    "BF16": b"\xc0\x7f",
}
"""A quiet NaN, little endian."""
CLAIMED_HEADER_BYTES = 64 * 1024
"""What the broken file says of its header, of which it holds a kilobyte."""
EMPTY_PICKLE = b"\x80\x02}q\x00."
"""An empty dict; harmless, should anyone load what nobody should."""
KEPT_CARD_FIELDS = ("license", "library_name", "pipeline_tag", "tags", "datasets")


@dataclass(frozen=True, kw_only=True, slots=True)
class Oddity:
    """One such repo: its name, the reason code it should end with, its weights and hub settings."""

    name: str
    reason: Reason
    text: str
    weights_name: str
    weights: bytes
    settings: Mapping[str, str | bool] | None = None


def write_oddities(hub_folder: Path, like: Path, owner: str = "oddities") -> list[str]:
    """Write the odd repos into ``hub_folder/<owner>/``.

    Args:
        hub_folder: The embedded hub's folder.
        like: A healthy repo folder; config.json is copied, the weights are the raw material.
        owner: Under whose name they are published.

    Returns:
        The repo ids, sorted.

    Raises:
        MissingInputError: `like` lacks config.json or model.safetensors.
        WeightsError: `like`'s weights have no floating-point tensor.
    """
    for name in ("config.json", WEIGHTS_NAME):
        if not (like / name).is_file():
            raise MissingInputError(f"There is no {name} in {like}; name a healthy repo folder.")
    config = (like / "config.json").read_bytes()
    card = like / "README.md"
    front = parse_front_matter(card.read_bytes()) if card.is_file() else {}
    oddities = list_oddities((like / WEIGHTS_NAME).read_bytes())
    for oddity in oddities:
        files: dict[str, bytes] = {}
        if oddity.settings is not None:  # first: a closed repo is never seen open
            files[SETTINGS_NAME] = json.dumps(oddity.settings).encode() + b"\n"
        files |= {"config.json": config, "README.md": write_card(oddity, front)}
        files[oddity.weights_name] = oddity.weights
        _write_changed(hub_folder / owner / oddity.name, files)
    return sorted(f"{owner}/{oddity.name}" for oddity in oddities)


def list_oddities(weights: bytes) -> tuple[Oddity, ...]:
    """Make the four oddities from a healthy safetensors file's bytes."""
    return (
        Oddity(
            name="broken-file",
            reason=Reason.HEADER_TRUNCATED,
            text="Its safetensors file says that its header is longer than the whole file.",
            weights_name=WEIGHTS_NAME,
            weights=CLAIMED_HEADER_BYTES.to_bytes(8, "little") + weights[8:1032],
        ),
        Oddity(
            name="pickle-only",
            reason=Reason.PICKLE_ONLY,
            text="Its weights are a pickle alone, which is never opened.",
            weights_name="pytorch_model.bin",
            weights=EMPTY_PICKLE,
        ),
        Oddity(
            name="nan-weights",
            reason=Reason.NON_FINITE_WEIGHTS,
            text="Its file is sound, but one weight is not a number.",
            weights_name=WEIGHTS_NAME,
            weights=put_nan(weights),
        ),
        Oddity(
            name="gated",
            reason=Reason.GATED,
            text="Its owner lets nobody in who has not asked.",
            weights_name=WEIGHTS_NAME,
            weights=weights,
            settings={"gated": "manual"},
        ),
    )


def put_nan(weights: bytes) -> bytes:
    """Overwrite the first number of a safetensors file's largest floating-point tensor with NaN."""
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size]) if size <= MAX_HEADER_BYTES else {}
    header.pop("__metadata__", None)
    floats = [tensor for tensor in header.values() if tensor["dtype"] in NAN_BYTES]
    start, stop = max(
        (t["data_offsets"] for t in floats), key=lambda o: o[1] - o[0], default=(0, 0)
    )
    if stop > start:
        nan = next(NAN_BYTES[t["dtype"]] for t in floats if t["data_offsets"] == [start, stop])
        start += 8 + size
        return weights[:start] + nan + weights[start + len(nan) :]
    raise WeightsError(
        f"The weights to copy have to hold a tensor of {', '.join(NAN_BYTES)}; name another repo."
    )


def write_card(oddity: Oddity, front: Mapping[str, Any]) -> bytes:
    """Write a card that explains itself."""
    kept = {name: front[name] for name in KEPT_CARD_FIELDS if name in front}
    tags = kept.get("tags")
    kept["tags"] = [*(tags if isinstance(tags, list) else []), "oddity"]
    block = yaml.safe_dump(kept, sort_keys=False)
    text = (
        f"# {oddity.name}\n\nThis repo is here to be left out. {oddity.text} "
        f"A crawl should record it with the reason `{oddity.reason}` and go on.\n"
    )
    return f"---\n{block}---\n\n{text}".encode()


def _write_changed(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = folder / name
        if path.is_file() and path.read_bytes() == data:
            continue
        part = folder / f".{name}.part"  # hidden, so never served
        part.write_bytes(data)
        part.replace(path)
