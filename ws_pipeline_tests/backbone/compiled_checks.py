"""Run by test_compiled in a process of its own, since type checks at run time break graphs.

Prints the losses of eager and compiled training on the same batches as JSON.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from torch._dynamo.utils import counters

from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.history import series
from ws_pipeline.backbone.loop import TrainingLoop
from ws_pipeline_tests.backbone.test_model import spread_out
from ws_pipeline_tests.backbone.tiny_corpus import make_job, make_windows


class SyntheticBatches:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, step: int):
        return {name: part.numpy() for name, part in make_windows(4, seed=step)._asdict().items()}


def train(root: Path, *, compiled: bool, precision: str) -> dict[str, list[float]]:
    job = make_job(root, "x", num_steps=6, log_every=1, evaluate_every=3, precision=precision)
    job = replace(job, training=replace(job.training, compile=compiled))
    loop = TrainingLoop(
        job,
        accelerator=Accelerator(mixed_precision="no"),
        train=SyntheticBatches(),
        val=[SyntheticBatches()[100]],
        checkpoints=CheckpointFolder(out_dir=Path(job.out_dir), job_digest=job.digest()),
    )
    spread_out(loop.backbone)  # fresh blocks are the identity but for a thousandth
    loop.run()
    names = ("train/loss", "train/grad_norm", "val/loss_reconstruction")
    return {name: series(loop.history.points, name)[1] for name in names}


if __name__ == "__main__":
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as root:
        for compiled in (False, True):
            found[str(compiled)] = train(
                Path(root, str(compiled)), compiled=compiled, precision=sys.argv[1]
            )
    found["num_graphs"] = counters["stats"]["unique_graphs"]
    sys.stdout.write(json.dumps(found))
