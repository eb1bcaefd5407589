"""The files of a simulated hub's repos, computed when they are asked for. Pure, no I/O.

What it is: config.json, README.md and weights of every repo at every revision, with the sizes and
digests that the hub states of them. What it is not: which of them may be had by whom
(``simulation_routes``). The models are small, 2 to 60 kB, but for a few whose files are longer than
what a client reads first.
"""

import functools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ws_pipeline.hub.server.draws import draw_share, mix
from ws_pipeline.hub.server.files import FileDigest, digest_bytes
from ws_pipeline.hub.server.hostile import HOSTILE_FILE_NAMES, HOSTILE_TENSOR_NAMES
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.hub.server.simulation_kinds import RepoKind

SHARE_LONG = 0.04
"""Of families whose files have 160 kB and more."""

_Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedFile:
    """One file of a revision."""

    data: bytes
    digest: FileDigest


class SimulatedFiles:
    """The files of a hub's repos. Keeps the last few revisions that were asked for."""

    def __init__(self, hub: SimulatedHub) -> None:
        self._hub = hub
        self.read = functools.lru_cache(maxsize=64)(self._make)

    def _make(self, index: int, push: int) -> dict[str, SimulatedFile]:
        """Return the files of a repo after so many pushes, by path."""
        kind = self._hub.kind(index, push)
        files = {
            "README.md": _make_card(self._hub.name(index, 0), kind),
            **self._weights(index, push),
        }
        config = dict(kind.config)
        if kind.relation == "quantized":
            config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
        files["config.json"] = json.dumps(config).encode()
        if kind.hostile == "file_name":
            files[HOSTILE_FILE_NAMES[index % len(HOSTILE_FILE_NAMES)]] = b"x"
        return {
            path: SimulatedFile(data=data, digest=digest_bytes(path, data))
            for path, data in sorted(files.items())
        }

    def _weights(self, index: int, push: int) -> dict[str, bytes]:
        kind = self._hub.kind(index, push)
        if kind.copy_of is not None and push == 0:
            return self._weights(kind.copy_of, 0)
        if kind.format == "pytorch":
            return {"pytorch_model.bin": b"\x80\x02" + self._noise(index, push).bytes(1000)}
        tensors = self._tensors(index, push, kind)
        if kind.relation == "adapter":
            adapter = json.dumps({"peft_type": "LORA", "r": 4}).encode()
            return {"adapter_config.json": adapter, "adapter_model.safetensors": save(tensors)}
        if kind.library == "diffusers" and kind.hostile is None:
            names = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
            parts = {f"{name}.safetensors": save(_prefix(tensors, name[:3])) for name in names}
            return {"model_index.json": b"{}", **parts}
        if kind.is_sharded or kind.hostile == "index":
            return _make_shards(tensors, leads_out=kind.hostile == "index")
        data = save(tensors)
        if kind.hostile == "header":
            data = (2**63).to_bytes(8, "little") + data[8:]
        return {"model.safetensors": data}

    def _tensors(self, index: int, push: int, kind: RepoKind) -> _Tensors:
        """Return weights in the shapes of the family."""
        is_long = draw_share(self._hub.seed, 23, kind.family) < SHARE_LONG
        width = 200 if is_long else 16 + 8 * (kind.family % 5)
        dtype = "float16" if kind.family % 3 == 1 else "float32"
        noise = self._noise(index, push)
        tensors: _Tensors = {}
        for layer in range(1 + kind.family % 3):
            shape = (width, width)
            if kind.relation == "quantized":
                tensors[f"layers.{layer}.qweight"] = noise.integers(0, 255, shape, dtype="int32")
                tensors[f"layers.{layer}.scales"] = noise.standard_normal(width).astype("float16")
                continue
            tensors[f"layers.{layer}.weight"] = noise.standard_normal(shape).astype(dtype)
            tensors[f"layers.{layer}.bias"] = noise.standard_normal(width).astype(dtype)
        if kind.hostile == "tensor_name":
            name = HOSTILE_TENSOR_NAMES[index % len(HOSTILE_TENSOR_NAMES)]
            tensors[name] = np.zeros(1, dtype)
        return tensors

    def _noise(self, index: int, push: int) -> np.random.Generator:
        return np.random.default_rng(mix(self._hub.seed, 14, index, push))

    def siblings(self, index: int, push: int) -> list[dict[str, Any]]:
        """Return the files as the hub's API lists them, with sizes and digests."""
        return [_describe(path, file) for path, file in self.read(index, push).items()]


def _make_card(name: str, kind: RepoKind) -> bytes:
    return f"---\nlicense: apache-2.0\nlibrary_name: {kind.library}\n---\n# {name}\n".encode()


def _prefix(tensors: _Tensors, prefix: str) -> _Tensors:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _make_shards(tensors: _Tensors, *, leads_out: bool) -> dict[str, bytes]:
    """Return two shards and their index."""
    names = sorted(tensors)
    half = len(names) // 2
    shards = {
        "model-00001-of-00002.safetensors": names[:half],
        "model-00002-of-00002.safetensors": names[half:],
    }
    weight_map = {name: shard for shard, inside in shards.items() for name in inside}
    if leads_out:
        weight_map[names[0]] = "../../../api/whoami-v2"
    files = {shard: save({n: tensors[n] for n in inside}) for shard, inside in shards.items()}
    index = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    return {**files, "model.safetensors.index.json": index}


def _describe(path: str, file: SimulatedFile) -> dict[str, Any]:
    size, digest = len(file.data), file.digest
    shown: dict[str, Any] = {"rfilename": path, "size": size, "blobId": digest.blob_id}
    if digest.sha256:
        pointer = digest.pointer_bytes
        shown["lfs"] = {"sha256": digest.sha256, "size": size, "pointerSize": pointer}
    return shown
