"""Does a training survive being killed? Random SIGKILLs over one run, against the undisturbed one.

    python benchmarks/kills.py --job HOME/runs/tiny/DIGEST/job.json [--steps 240] [--kills 30]

The job's corpus and network, cut to some hundred steps with a checkpoint every few, so that many a
kill falls into the writing of one. After every kill all published checkpoints are verified file by
file. Exit code 1 if one is unreadable, if progress is lost beyond a checkpoint, or if the final
weights are not the undisturbed run's, bit for bit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from ws_pipeline.backbone.checkpoints import CheckpointFolder, read_verified
from ws_pipeline.backbone.history import read_history
from ws_pipeline.backbone.job import TrainJob

TRAINER = [sys.executable, "-m", "ws_pipeline.backbone.train", "--job"]


def start(job: TrainJob, path: Path) -> "subprocess.Popen[bytes]":
    job.write(path)
    return subprocess.Popen([*TRAINER, str(path)], stderr=subprocess.DEVNULL)


def last_step(folder: Path) -> int:
    points = read_history(folder)
    return points[-1].step if points else 0


def wait_for_step(process: "subprocess.Popen[bytes]", folder: Path, step: int) -> None:
    """Wait until a run has come so far, or ended."""
    while process.poll() is None and last_step(folder) < step:
        time.sleep(0.01)


def staged(folder: Path) -> bool:
    """Say whether the kill fell into the writing of a checkpoint."""
    return any((folder / "staging").glob("step-*"))


def kill_over_and_over(job: TrainJob, path: Path, num_kills: int, seed: int) -> dict[str, int]:
    """Kill at random moments spread over the run; returns what was seen."""
    generator, folder = random.Random(seed), Path(job.out_dir)
    steps = sorted(generator.randrange(1, job.training.num_steps - 5) for _ in range(num_kills))
    seen = {"kills": 0, "kills_while_writing": 0, "unreadable": 0, "steps_redone": 0}
    for step in steps:
        process = start(job, path)
        wait_for_step(process, folder, step)
        time.sleep(generator.uniform(0.0, 0.3))
        process.kill()
        if process.wait() == 0:
            break
        seen["kills"] += 1
        seen["kills_while_writing"] += staged(folder)
        published = list((folder / "checkpoints").glob("step-*"))
        seen["unreadable"] += sum(read_verified(each) is None for each in published)
        newest = CheckpointFolder(out_dir=folder, job_digest=job.digest()).newest()
        seen["steps_redone"] += last_step(folder) - (newest.step if newest else 0)
        print(f"killed at {last_step(folder)}, goes on at {newest.step if newest else 0}")
    return seen


def finish(job: TrainJob, path: Path) -> str:
    """Train to the end; the sha256 of the weights."""
    if start(job, path).wait() != 0:
        sys.exit(f"the run in {job.out_dir} did not end well")
    return str(json.loads((Path(job.out_dir) / "result.json").read_text())["model_sha256"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    job = TrainJob.read(arguments.job)
    training = replace(
        job.training,
        num_steps=arguments.steps,
        checkpoint_every=3,
        log_every=1,
        evaluate_every=50,
    )
    with tempfile.TemporaryDirectory() as root:
        straight, killed = (
            replace(job, training=training, out_dir=f"{root}/{name}", mlflow_tracking_uri="")
            for name in ("straight", "killed")
        )
        path = Path(root) / "job.json"
        expected = finish(straight, path)
        seen = kill_over_and_over(killed, path, arguments.kills, arguments.seed)
        same = finish(killed, path) == expected
        steps = [point.step for point in read_history(Path(killed.out_dir))]
    seen |= {"same_weights": same, "every_step_once": steps == list(range(1, len(steps) + 1))}
    print(json.dumps(seen))
    return 0 if same and not seen["unreadable"] and seen["every_step_once"] else 1


if __name__ == "__main__":
    sys.exit(main())
