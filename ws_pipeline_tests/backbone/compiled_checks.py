"""Run by test_compiled in a process of its own, since type checks at run time break graphs.

Prints the losses of eager and compiled training on the same batches as JSON.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch._dynamo.utils import counters

from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.devices import autocast
from ws_pipeline.backbone.loop import TrainingLoop
from ws_pipeline_tests.backbone.test_model import spread_out
from ws_pipeline_tests.backbone.tiny_corpus import make_job, make_windows


class NoBatches:
    def __len__(self) -> int:
        return 0


def train(root: Path, *, compiled: bool, precision: str) -> dict[str, list[float]]:
    job = make_job(root, "x", num_steps=6, precision=precision)
    job = replace(job, training=replace(job.training, compile=compiled))
    loop = TrainingLoop(
        job,
        accelerator=Accelerator(mixed_precision="no"),
        train=NoBatches(),
        val=[],
        checkpoints=CheckpointFolder(out_dir=Path(job.out_dir), job_digest=job.digest()),
    )
    spread_out(loop.backbone)  # fresh blocks are the identity but for a thousandth
    loop.model.train()
    for step in range(6):
        loop.train_on(make_windows(4, seed=step))
    rows = torch.stack(loop.progress.recent)
    with torch.no_grad(), autocast(loop.precision, loop.device):
        latents = loop.backbone(*make_windows(4, seed=100)).latents
    return {
        "loss": rows[:, 0].tolist(),
        "grad_norm": rows[:, -1].tolist(),
        "latents": [float(latents.square().mean())],
    }


if __name__ == "__main__":
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as root:
        for compiled in (False, True):
            found[str(compiled)] = train(
                Path(root, str(compiled)), compiled=compiled, precision=sys.argv[1]
            )
    found["num_graphs"] = counters["stats"]["unique_graphs"]
    sys.stdout.write(json.dumps(found))
