"""A corpus of a few tiny models in a store, made through the real stages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from ws_pipeline.backbone.config import BackboneConfig, LossConfig, TrainingConfig, ViewConfig
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.tokens.window_batch import PieceField, Section, WindowBatch, align
from ws_pipeline.weights.layers import plan_family

TOKEN_SIZE = 8
SPLITS = ("train", "train", "train", "train", "val", "test")

CONFIG = '{"model_type": "mlp", "architectures": ["Mlp"]}'
"""Names the zoos' MLP, whose hidden units are known to be interchangeable."""

TINY = BackboneConfig(
    token_size=TOKEN_SIZE, width=24, num_layers=1, num_heads=2, latent_size=6, projection_size=4
)


def write_model(folder: Path, seed: int) -> None:
    """A small MLP with low-rank structure and layers of very different scale."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, cols: int, scale: float) -> torch.Tensor:
        left = torch.randn(rows, 2, generator=generator)
        return scale * left @ torch.randn(2, cols, generator=generator)

    folder.mkdir(parents=True)
    width = 10 + 2 * (seed % 3)
    state = {
        "layers.0.weight": matrix(width, 12, 1.0),
        "layers.0.bias": torch.randn(width, generator=generator) * 0.1,
        "layers.1.weight": matrix(4, width, 1e-3),
        "layers.1.bias": torch.zeros(4),
    }
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(CONFIG)


def build_corpus(root: Path, num_models: int = 6) -> tuple[Store, str, pl.DataFrame]:
    """Store models as shards; returns the store, the snapshot's digest and the corpus."""
    store = Store.open(root / "store")
    rows = []
    for index in range(num_models):
        folder = root / "repos" / f"model-{index}"
        write_model(folder, seed=index)
        files = []
        for name in ("config.json", "model.safetensors"):
            blob = store.blobs.put_file(folder / name)
            files.append({"path": name, "sha256": blob.sha256, "num_bytes": blob.num_bytes})
        repo = {
            "hub_id": f"{index:024x}",
            "repo_id": f"owner/model-{index}",
            "revision": f"{index:040x}",
        }
        key = f"hub-files/{repo['hub_id']}/{repo['revision']}/1"
        store.manifests.create(key, {**repo, "files": files})
        rows.append({**repo, "accepted": True, "manifest": key})
    files = pl.DataFrame(rows)
    shards = pack_family(store, plan_family(store, files)).filter("accepted")
    assert shards.height == num_models
    corpus = shards.with_columns(
        split=pl.Series([SPLITS[index % len(SPLITS)] for index in range(num_models)]),
        family=pl.Series([f"family-{index % 2}" for index in range(num_models)]),
    )
    return store, store.snapshots.create(corpus), corpus


def make_job(root: Path, snapshot: str, **training: object) -> TrainJob:
    """A job of a second or two on the corpus of :func:`build_corpus`."""
    config = TrainingConfig(
        num_steps=12,
        batch_size=4,
        window_size=16,
        learning_rate=3e-3,
        log_every=2,
        evaluate_every=6,
        checkpoint_every=5,
        num_validation_batches=1,
        precision="fp32",
    )
    return TrainJob(
        recipe_name="test",
        recipe_digest="0" * 64,
        recipe={"backbone": {"width": TINY.width}, "families": ["a", "b"]},
        store_root=str(root / "store"),
        snapshot=snapshot,
        backbone=TINY,
        loss=LossConfig(contrastive_weight=0.05),
        views=ViewConfig(),
        training=replace(config, **training),  # type: ignore[arg-type]
        layout=TokenLayout(token_size=TOKEN_SIZE),
        out_dir=str(root / "out"),
    )


def make_windows(
    batch: int = 3, window: int = 7, token_size: int = TOKEN_SIZE, *, seed: int = 0
) -> Windows:
    """Random windows of two layers each; the last tokens of later rows are padding."""
    random = np.random.default_rng(seed)
    lengths = np.full((batch, window), token_size)
    for row in range(batch):
        lengths[row, window - row :] = 0
    lengths[:, 2] = token_size // 2
    mask = torch.from_numpy(np.arange(token_size) < lengths[..., None])
    layer = (np.arange(window) >= window // 2).astype(np.int64)
    positions = np.stack([np.arange(window), layer, np.arange(window)], axis=-1)
    std = np.where(layer == 0, 0.5, 0.002).astype(np.float32)
    scale = np.stack([0.1 * std, np.log(std)], axis=-1).astype(np.float32)
    tokens = random.standard_normal((batch, window, token_size)).astype(np.float32)
    tokens = tokens * std[:, None] + 0.1 * std[:, None]
    return Windows(
        tokens=torch.from_numpy(tokens.astype(np.float32)).masked_fill(~mask, 0.0),
        mask=mask,
        positions=torch.from_numpy(np.broadcast_to(positions, (batch, window, 3)).copy()),
        scale=torch.from_numpy(np.broadcast_to(scale, (batch, window, 2)).copy()).masked_fill(
            ~mask.any(dim=-1, keepdim=True), 0.0
        ),
    )


def make_batch(windows: Windows) -> WindowBatch:
    """Windows as a batch that expands to them: a piece to each token, float32 values."""
    batch, window, token_size = windows.tokens.shape
    lengths = windows.mask.sum(dim=-1).reshape(-1).numpy()
    values = windows.tokens[windows.mask].numpy()
    pieces = np.zeros((batch * window, len(PieceField)), dtype=np.int64)
    pieces[:, PieceField.NUM_TOKENS] = 1
    positions = windows.positions.reshape(-1, 3).numpy()
    pieces[:, [PieceField.PLACE_IN_MODEL, PieceField.LAYER]] = positions[:, :2]
    pieces[:, PieceField.PLACE_IN_LAYER] = positions[:, 2]
    pieces[:, PieceField.TOKENS_PER_RUN] = 2**40  # the token ends its layer's only run
    pieces[:, PieceField.RUN_LENGTH] = positions[:, 2] * token_size + lengths
    scales = np.ones((batch * window, 4), dtype=np.float32)
    scales[:, :2] = windows.scale.reshape(-1, 2).numpy()
    tables = pieces.tobytes() + scales.tobytes()
    start = align(len(tables))
    data = tables + bytes(start - len(tables)) + values.tobytes()
    return WindowBatch(
        data=np.frombuffer(bytearray(data), dtype=np.uint8),
        num_pieces=len(pieces),
        sections=(Section(dtype="F32", start_byte=start, num_values=len(values)),),
        num_windows=batch,
        window_size=window,
        token_size=token_size,
        num_real_tokens=int((lengths > 0).sum()),
        models=np.zeros(batch, dtype=np.int64),
    )
