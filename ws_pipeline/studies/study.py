"""What a study is: variants of a recipe, over populations and seeds. Frozen values; no I/O.

A cell is one training: a variant with a seed. Cells with the same job, corpus and measurement are
the same cell, in whatever study they stand, so that studies share what they have in common.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from ws_pipeline.errors import ConfigError
from ws_pipeline.evaluation.curves import Axis
from ws_pipeline.evaluation.targets import read_dataset
from ws_pipeline.recipes import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """Which models of the train split a variant is trained on.

    Of two populations of the same kinds of models, the smaller one is part of the larger one.

    Attributes:
        families: Names; empty for all.
        datasets: What their models were trained on, as the cards say; empty for all.
        num_models: At most this many, as evenly over families, and over data sets where they are
            named, as they allow; 0 for all.
    """

    families: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    num_models: int = 0

    def covers(self) -> pl.Expr:
        """Say of rows (family, dataset) whether they are of its kinds."""
        named = pl.lit(value=True)
        for column, values in (("family", self.families), ("dataset", self.datasets)):
            if values:
                named = named & pl.col(column).is_in(values)
        return named

    def choose(self, models: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of `models` (hub_id, family, dataset) that belong to it, in order."""
        models = models.filter(self.covers())
        if not self.num_models:
            return models
        names = models["hub_id"].to_list()
        place = pl.Series([hashlib.sha256(name.encode()).hexdigest() for name in names])
        kinds = ["family", "dataset"] if self.datasets else ["family"]
        ranked = models.with_columns(place=place).with_columns(
            rank=pl.col("place").rank("ordinal").over(kinds)
        )
        chosen = ranked.sort("rank", "place").head(self.num_models).select("hub_id")
        return models.join(chosen, on="hub_id", how="semi", maintain_order="left")


def name_datasets(corpus: pl.DataFrame) -> pl.DataFrame:
    """Return corpus rows with the column `dataset`, as their cards name it; "" for none."""
    named = [read_dataset(text) for text in corpus["card"]]
    return corpus.with_columns(dataset=pl.Series(named, dtype=pl.String))


EVERYTHING = Population()


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One line of a study's table.

    Attributes:
        name: Unique in its study; the results' ``features``.
        recipe: What is trained.
        factors: What was varied, name to value; MLflow tags and columns of the table.
        population: What it is trained on.
        seeds: Of initial weights, windows and views; one cell each.
        compared_with: Name of the variant beside which it stands; empty for the study's baseline.
    """

    name: str
    recipe: Recipe
    factors: Mapping[str, str]
    population: Population = EVERYTHING
    seeds: tuple[int, ...] = (0,)
    compared_with: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One training of a study."""

    variant: Variant
    seed: int

    @property
    def recipe(self) -> Recipe:
        """The variant's recipe with the cell's seed."""
        recipe = self.variant.recipe
        training = dataclasses.replace(recipe.training, seed=self.seed)
        return dataclasses.replace(recipe, training=training)


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A point of a curve: variants whose numbers are averaged.

    Attributes:
        place: On the axis: models, or kinds of models.
        variants: Their names.
    """

    place: int
    variants: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Numbers against the size of a population or its diversity, the other one fixed."""

    name: str
    axis: Axis
    levels: tuple[Level, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """What more kinds of models do beside what more models do; each is the mean over its variants.

    Attributes:
        name: Of the question.
        narrow: Of one kind.
        diverse: As many of more kinds.
        small: Of one kind, too; of the one that has a large one.
        large: More of the same.
    """

    name: str
    narrow: tuple[str, ...]
    diverse: tuple[str, ...]
    small: tuple[str, ...]
    large: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Variants side by side.

    Attributes:
        name: Of the command, the MLflow experiment and the results' ``evaluation``.
        question: What it asks.
        variants: In the order of the table.
        baseline: Name of the variant that the others are compared with.
        groups: Named sets of families; errors are summarised within each, beside all.
        embed_all: Whether all models are embedded, or those with a property to predict only.
        generates: Whether weights are generated for held-out models of the zoos.
        curves: What is drawn against size and diversity.
        contrasts: What is held against each other.
    """

    name: str
    question: str
    variants: tuple[Variant, ...]
    baseline: str
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    embed_all: bool = False
    generates: bool = False
    curves: tuple[Curve, ...] = ()
    contrasts: tuple[Contrast, ...] = ()

    def __post_init__(self) -> None:
        """Check that names are unique and that who is compared with is one of them."""
        names = [variant.name for variant in self.variants]
        asked = {self.baseline} | {v.compared_with for v in self.variants if v.compared_with}
        if len(set(names)) != len(names) or not asked <= set(names):
            raise ConfigError(
                f"Study {self.name}: variants must have names of their own and the baselines "
                f"{', '.join(sorted(asked))} must be among them; they are {', '.join(names)}."
            )

    def cells(self) -> Iterator[Cell]:
        """Yield all cells, the first seed of every variant first."""
        for index in range(max(len(variant.seeds) for variant in self.variants)):
            for variant in self.variants:
                if index < len(variant.seeds):
                    yield Cell(variant=variant, seed=variant.seeds[index])
