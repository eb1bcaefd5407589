"""The code location of the deployment's tests: the same, but that `tiny` trains for seconds.

Some hundred small steps with a checkpoint every few, so that a kill finds it in the middle, and
pauses between tries that nobody has to wait for.
"""

import dataclasses

from ws_pipeline.defs import retries
from ws_pipeline.recipes import Recipe, catalog
from ws_pipeline_tests.deployment.trainer import CHECKPOINT_EVERY, NUM_STEPS


def short() -> Recipe:
    tiny = catalog.build_recipe("tiny")
    training = dataclasses.replace(
        tiny.training,
        num_steps=NUM_STEPS,
        batch_size=8,
        window_size=16,
        log_every=20,
        evaluate_every=200,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    return dataclasses.replace(tiny, training=training)


catalog.RECIPES = {**catalog.RECIPES, "tiny": short}
retries.FIRST_PAUSE_SECONDS = 1.0

from ws_pipeline.definitions import defs  # noqa: E402 - after what it is made of was changed

__all__ = ["defs"]
