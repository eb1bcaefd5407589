"""Generated models as checkpoints that load like their anchors. Does I/O.

A folder gets the files of the first anchor under their own names with new tensors, its config.json,
and ``generation.json``, which says what the weights were made of. Files appear whole or not at all.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from ws_pipeline.generation.template import Weights
from ws_pipeline.weights.checkpoint import CONFIG_NAME, Checkpoint

RECORD_NAME = "generation.json"
NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".md")
"""Weights that would be the anchor's own, and cards that would speak of it."""


def write_checkpoint(
    folder: Path, weights: Weights, like: Path, *, record: Mapping[str, Any]
) -> None:
    """Write one model.

    Args:
        folder: Made, or written into.
        weights: Every tensor of the checkpoint that it is like.
        like: That checkpoint: a file or a folder.
        record: What ``generation.json`` says.
    """
    checkpoint = Checkpoint.open(like)
    folder.mkdir(parents=True, exist_ok=True)
    for file in checkpoint.files:
        partial = folder / f".{Path(file.name).name}.partial"
        tensors = {tensor.name: weights[tensor.name] for tensor in file.header.tensors}
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.replace(folder / Path(file.name).name)
    for path in _side_files(like):
        shutil.copyfile(path, folder / path.name)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    partial = folder / f".{RECORD_NAME}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / RECORD_NAME)


def _side_files(like: Path) -> list[Path]:
    """List what a loader needs beside the weights: config, tokenizer, shard index."""
    if like.is_file():
        config = like.parent / CONFIG_NAME
        return [config] if config.is_file() else []
    return sorted(
        path
        for path in like.iterdir()
        if path.is_file() and path.suffix not in NOT_COPIED and path.name != RECORD_NAME
    )
