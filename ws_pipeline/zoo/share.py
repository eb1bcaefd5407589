"""One process's share of a zoo: ``accelerate launch -m ws_pipeline.zoo.share --zoo NAME ...``.

What it is: every so-many-th stack, on the device that Accelerate gives to this process, so that a
zoo trains on several GPUs, or on several cores without a lock between them. What it is not: the
index and the summary, which ``train_zoo`` makes afterwards of what the processes left in the
folder. Every stack is a record of its own there: a killed launch goes on where it stopped, with
any number of processes. Does I/O.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch

from ws_pipeline.errors import WsPipelineError
from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.config import ZooConfig
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.grid import plan_zoo
from ws_pipeline.zoo.train import one_torch_thread, show_models, train_recorded
from ws_pipeline.zoo.workers import divide_plans, divide_stacks

LONGEST_WAIT = timedelta(days=7)
"""Of a process for the others, between two generations; gloo's own half hour is a short zoo."""


def train_share(
    config: ZooConfig,
    folder: Path,
    *,
    index: int,
    count: int,
    wait: Callable[[], object],
    data: Path | None = None,
    device: torch.device,
    show_progress: bool | None = None,
) -> None:
    """Train one process's stacks.

    Args:
        config: The zoo.
        folder: Where it goes.
        index: Which process this is.
        count: How many there are.
        wait: Returns when every process has called it.
        data: Where data sets lie that do not ship with the dependencies.
        device: Where stacks train.
        show_progress: As for ``train_zoo``.
    """
    stacks = {name: divide_plans(plans) for name, plans in plan_zoo(config).items()}
    share = divide_stacks(config.populations, stacks, index=index, count=count)
    num_models = sum(len(stack) for generation in share for _, stack in generation)
    with show_models(config.name, num_models, show_progress) as bar, one_torch_thread():

        def advance(num_all_epochs: int, num_epochs: int) -> None:
            bar.update(num_epochs / num_all_epochs)

        for generation in share:
            for grid, stack in generation:
                train_recorded(
                    config,
                    stack,
                    load_dataset(grid.dataset, data),
                    folder,
                    device=device,
                    progress=partial(advance, grid.num_epochs),
                )
            wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train this process's share; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ws_pipeline.zoo.share")
    parser.add_argument("--zoo", required=True, help="its name")
    parser.add_argument("--folder", type=Path, required=True, help="where it goes")
    parser.add_argument("--data", type=Path, help="data sets of your own")
    given = parser.parse_args(arguments)

    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)])
    try:
        train_share(
            zoo_config(given.zoo),
            given.folder,
            index=accelerator.process_index,
            count=accelerator.num_processes,
            wait=accelerator.wait_for_everyone,
            data=given.data,
            device=accelerator.device,
            show_progress=None if accelerator.is_main_process else False,
        )
    except WsPipelineError as error:
        sys.stderr.write(f"error[{error.reason}]: {error}\n")
        return error.exit_code
    finally:
        accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(main())
