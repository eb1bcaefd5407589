"""Zero-shot generation: what models decoded from a backbone can do that were never trained. I/O.

What it is: held-out models of the zoos as anchors, aligned once; draws near each (`model-kde`),
decoded by the backbone of a cell, with BatchNorm statistics of the target's data; accuracies before
any step of training. What it is not: the generation study with its baselines and trainings
(``evaluation.generation``). Reads the zoos' repos.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ws_pipeline.generation.config import DensityConfig

if TYPE_CHECKING:
    from ws_pipeline.backbone.model import Backbone
    from ws_pipeline.evaluation.generation_population import Population
    from ws_pipeline.generation.scoring import Scorer
    from ws_pipeline.generation.template import Weights

MAX_ANCHORS = 5
"""Of a population: its best held-out models by validation."""

MIN_ANCHORS = 3
"""A spread needs some; populations with fewer held-out models of one shape are left out."""

DRAWS_PER_ANCHOR = 2

DENSITY = DensityConfig(kind="model-kde", bandwidth=0.2)
"""The kind that keeps most of an anchor's accuracy (docs/experiments.md, 2026-11-24)."""

EVAL_ROWS = 500
"""Of each held-out split."""

DRAW_SEED = 0

GENERATED_SCHEMA = pl.Schema(
    {
        "family": pl.String,
        "dataset": pl.String,
        "hub_id": pl.String,
        "draw": pl.Int64,
        "accuracy": pl.Float64,
        "anchor_accuracy": pl.Float64,
    }
)
"""One row per draw; ``hub_id`` is the anchor that it is near."""


@dataclass(frozen=True, kw_only=True)
class ZeroShotCase:
    """Held-out models of one architecture and data set.

    Attributes:
        hub_ids: Of the anchors.
        population: Of the zoo; the anchors are its first models.
        anchors: Aligned to the first.
        anchor_accuracies: On the test split.
        scorer: Of the data set.
    """

    family: str
    dataset: str
    hub_ids: tuple[str, ...]
    population: "Population"
    anchors: Sequence["Weights"]
    anchor_accuracies: tuple[float, ...]
    scorer: "Scorer"

    @property
    def digest(self) -> str:
        """What is measured: the anchors and how much is drawn."""
        text = f"{self.hub_ids} {DRAWS_PER_ANCHOR} {DENSITY} {EVAL_ROWS} {DRAW_SEED}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_cases(zoos: Path, held_out: pl.DataFrame) -> list[ZeroShotCase]:
    """Return a case for every architecture and data set with enough held-out models.

    Of data sets that ship with the package; of several populations the one with the most models.

    Args:
        zoos: Folder of the home's trained zoos.
        held_out: Corpus rows that anchors may come from.
    """
    ids = dict(zip(held_out["repo_id"].str.split("/").list.last(), held_out["hub_id"], strict=True))
    return [
        _open_case(zoos / str(zoo), str(population), str(family), str(dataset), ids)
        for family, dataset, zoo, population in _choose_populations(zoos, list(ids))
    ]


def _choose_populations(zoos: Path, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield (family, dataset, zoo, population)."""
    from ws_pipeline.zoo.datasets.catalog import SHIPPED_NAMES
    from ws_pipeline.zoo.index import INDEX_FILE, read_index

    indexes = [
        read_index(path.parent).with_columns(zoo=pl.lit(path.parent.name))
        for path in sorted(zoos.glob(f"*/{INDEX_FILE}"))
    ]
    if not indexes:
        return
    rows = pl.concat(indexes, how="diagonal_relaxed").filter(
        pl.col("is_final") & pl.col("name").is_in(names) & pl.col("dataset").is_in(SHIPPED_NAMES)
    )
    shapes = rows.group_by("family", "dataset", "zoo", "population", "num_params").len()
    ranked = shapes.sort(
        "family",
        "dataset",
        "len",
        "zoo",
        "population",
        descending=[False, False, True, False, False],
    ).filter(pl.col("len") >= MIN_ANCHORS)
    best = ranked.unique(["family", "dataset"], keep="first", maintain_order=True)
    yield from best.select("family", "dataset", "zoo", "population").rows()


def _open_case(
    zoo: Path, population: str, family: str, dataset: str, ids: dict[str, str]
) -> ZeroShotCase:
    from ws_pipeline.evaluation.generation_config import GenerationCase, GenerationConfig
    from ws_pipeline.evaluation.generation_population import read_population
    from ws_pipeline.generation.anchors import align_anchors
    from ws_pipeline.generation.scoring import Scorer
    from ws_pipeline.zoo.datasets.catalog import load_dataset

    data = load_dataset(dataset)
    case = GenerationCase(zoo=zoo.name, population=population, dataset=dataset)
    config = GenerationConfig(num_anchors=MIN_ANCHORS, eval_rows=EVAL_ROWS)
    found = read_population(zoo, case, data, config, among=list(ids))
    scorer = Scorer(found.plan, data)
    anchors = align_anchors(found.weights[:MAX_ANCHORS], found.template.config)
    return ZeroShotCase(
        family=family,
        dataset=dataset,
        hub_ids=tuple(ids[name] for name in found.names[:MAX_ANCHORS]),
        population=found,
        anchors=anchors,
        anchor_accuracies=tuple(_score(scorer, weights) for weights in anchors),
        scorer=scorer,
    )


def generate(backbone: "Backbone", cases: Sequence[ZeroShotCase]) -> pl.DataFrame:
    """Draw models of every case and score them; a frame of `GENERATED_SCHEMA`."""
    from ws_pipeline.generation.generator import Generator

    rows: list[tuple[object, ...]] = []
    for case in cases:
        maker = Generator(backbone, case.population.template, case.anchors, DENSITY)
        for index, weights in enumerate(maker.draw_near(DRAWS_PER_ANCHOR, seed=DRAW_SEED)):
            anchor, draw = divmod(index, DRAWS_PER_ANCHOR)
            accuracy = _score(case.scorer, weights)
            known = (case.hub_ids[anchor], draw, accuracy, case.anchor_accuracies[anchor])
            rows.append((case.family, case.dataset, *known))
    return pl.DataFrame(rows, schema=GENERATED_SCHEMA, orient="row")


def _score(scorer: "Scorer", weights: "Weights") -> float:
    """Return the accuracy on the test split, with statistics of the training inputs."""
    own = scorer.score(weights).weights
    return float((scorer.predict(own) == scorer.test_labels()).double().mean())
