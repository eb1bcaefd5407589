"""What a repo's own files say about it: card, config, parameter counts, and the tags that follow.

Belongs here: the rules by which the embedded hub derives a repo's listing from README.md,
config.json and safetensors headers, as the public hub does. Does not: walking folders, digests
(``files``), the crawl's opinion of a repo (``selection``). Pure over bytes, but for
``count_parameters``, which reads the heads of files. Nothing here trusts what it reads.

Source: https://huggingface.co/docs/hub/model-cards (front matter, base_model, model-index).
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml

from ws_pipeline.bounded_json import check_structure

MAX_FRONT_MATTER_BYTES = 256 * 1024
"""Real cards stay below 64 KiB; the largest ones are long model-index blocks."""
MAX_NESTING = 32
"""Depth of YAML or JSON that is kept; a model-index needs 9."""
MAX_HEADER_BYTES = 16 * 1024 * 1024
"""A 49,152-tensor mixture-of-experts header is 5 MB."""
MAX_INTEGER = 2**64
"""YAML makes a number of 100,000 digits of a sexagesimal one, which JSON then cannot write."""
MAX_CONFIG_VALUES = 500_000
"""A config with 50,000 labels each way has 200,000."""
CONFIG_KEYS = ("architectures", "model_type", "auto_map", "quantization_config", "peft")
"""What a listing shows of config.json; the whole file is one request away."""
RELATIONS = ("adapter", "merge", "quantized", "finetune")

_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is 10 times faster


def to_json_value(value: object, *, depth: int = 0) -> Any:
    """Turn what YAML or JSON gave into what strict JSON can say; NaN becomes None, dates text."""
    if depth > MAX_NESTING or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, int):
        return value if abs(value) <= MAX_INTEGER else None
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_json_value(item, depth=depth + 1) for item in value]
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def parse_front_matter(readme: bytes) -> dict[str, Any]:
    """Return the YAML block that heads a card, ``{}`` when there is none or it is not sound.

    Aliases are refused (they make a kilobyte into gigabytes), and so is deep nesting.
    """
    text = readme[:MAX_FRONT_MATTER_BYTES].decode("utf-8", errors="replace")
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        return {}
    block = "\n".join(lines[1:end])
    try:
        if not _is_plain_yaml(block):
            return {}
        values = yaml.load(block, Loader=_SAFE_LOADER)  # noqa: S506 - a SafeLoader, see above
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError):
        return {}
    return to_json_value(values) if isinstance(values, dict) else {}


def _is_plain_yaml(block: str) -> bool:
    depth = 0
    for event in yaml.parse(block, Loader=_SAFE_LOADER):
        if isinstance(event, yaml.AliasEvent):
            return False
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_NESTING:
            return False
    return True


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object, ``{}`` for anything else."""
    try:
        check_structure(
            data, max_bytes=len(data), max_depth=2 * MAX_NESTING, max_values=MAX_CONFIG_VALUES
        )
        values = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return to_json_value(values) if isinstance(values, dict) else {}


def count_parameters(paths: Iterable[Path]) -> dict[str, int] | None:
    """Add up parameters by dtype over safetensors files, None when any header is not sound."""
    counts: dict[str, int] = {}
    for path in paths:
        header = _read_header(path)
        if header is None:
            return None
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            size = _tensor_size(tensor)
            if size is None:
                return None
            counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + size
    return counts or None


def _read_header(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            data = file.read(size) if size <= MAX_HEADER_BYTES else b""
    except OSError:
        return None
    if not data or len(data) != size:
        return None
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _tensor_size(tensor: object) -> int | None:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("dtype"), str):
        return None
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) > MAX_NESTING:
        return None
    if not all(type(size) is int and 0 <= size < 2**40 for size in shape):
        return None
    return math.prod(shape)


def texts(value: object) -> list[str]:
    """Read a card field that may be one string or a list of them."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str) and item]


def list_base_models(card: Mapping[str, Any], names: Iterable[str]) -> tuple[list[str], str]:
    """Return the repos a card descends from, and how; an unstated relation is inferred.

    Returns:
        The ids, and one of ``RELATIONS`` or "" when there is no base model.
    """
    bases = texts(card.get("base_model"))
    relation = card.get("base_model_relation")
    if not bases:
        return [], ""
    if relation in RELATIONS:
        return bases, str(relation)
    if "adapter_config.json" in set(names):
        return bases, "adapter"
    return bases, "merge" if len(bases) > 1 else "finetune"


def find_library(card: Mapping[str, Any], config: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the library a repo is for: the card's word, else what its files look like."""
    stated = card.get("library_name")
    if isinstance(stated, str) and stated:
        return stated
    present = set(names)
    if "adapter_config.json" in present:
        return "peft"
    if "model_index.json" in present:
        return "diffusers"
    return "transformers" if "transformers_version" in config else ""


def list_tags(card: Mapping[str, Any], config: Mapping[str, Any], names: list[str]) -> list[str]:
    """Return a repo's tags in the order of the public hub, each once."""
    bases, relation = list_base_models(card, names)
    tags = [find_library(card, config, names)]
    tags += ["safetensors"] if any(name.endswith(".safetensors") for name in names) else []
    tags += texts(config.get("model_type"))
    tags += texts(card.get("tags"))
    tags += texts(card.get("pipeline_tag"))
    tags += texts(card.get("language"))
    tags += [f"dataset:{name}" for name in texts(card.get("datasets"))]
    tags += [f"base_model:{name}" for name in bases]
    tags += [f"base_model:{relation}:{name}" for name in bases]
    tags += [f"license:{name}" for name in texts(card.get("license"))]
    tags += ["region:us"]  # the public hub puts a region on every repo
    return [tag for tag in dict.fromkeys(tags) if tag]
