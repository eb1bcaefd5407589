"""Which draws are kept: the best m of n by validation (SUB), again from these (BOOT). No I/O.

Source: SANE, arXiv 2406.09997, section 3.4. Ours: what is kept of a round stays a candidate of the
next one, so that a round never makes it worse.
"""

from collections.abc import Callable, Sequence

from ws_pipeline.generation.config import SelectionConfig
from ws_pipeline.generation.scoring import ScoredModel, Scorer
from ws_pipeline.generation.template import Weights

DrawFrom = Callable[[Sequence[Weights], int, int], list[Weights]]
"""Called with (anchors, how many, seed)."""


def keep_best(models: Sequence[ScoredModel], num_kept: int) -> list[ScoredModel]:
    """Return the best models by validation accuracy, then loss, then order."""
    ranked = sorted(range(len(models)), key=lambda i: (-models[i].accuracy, models[i].loss, i))
    return [models[index] for index in ranked[:num_kept]]


def select_models(
    draw: DrawFrom,
    anchors: Sequence[Weights],
    scorer: Scorer,
    config: SelectionConfig,
    *,
    seed: int,
) -> list[ScoredModel]:
    """Draw and keep, round after round.

    Args:
        draw: Makes models from anchors.
        anchors: Of the first round.
        scorer: Of the data set that they shall be good at.
        config: How many.
        seed: Of the first round; the others have the next ones.

    Returns:
        The kept models, best first.
    """
    kept: list[ScoredModel] = []
    for round_number in range(config.num_rounds):
        drawn = draw(anchors, config.num_candidates, seed + round_number)
        kept = keep_best([*kept, *(scorer.score(weights) for weights in drawn)], config.num_kept)
        anchors = [model.weights for model in kept]
    return kept
