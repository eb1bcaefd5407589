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
from ws_pipeline.recipes import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """Which models of the train split a variant is trained on.

    Of two populations of the same families, the smaller one is part of the larger one.

    Attributes:
        families: Names; empty for all.
        num_models: At most this many, as evenly over the families as they allow; 0 for all.
    """

    families: tuple[str, ...] = ()
    num_models: int = 0

    def choose(self, models: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of `models` (hub_id, family) that belong to it, in their order."""
        if self.families:
            models = models.filter(pl.col("family").is_in(self.families))
        if not self.num_models:
            return models
        names = models["hub_id"].to_list()
        place = pl.Series([hashlib.sha256(name.encode()).hexdigest() for name in names])
        ranked = models.with_columns(place=place).with_columns(
            rank=pl.col("place").rank("ordinal").over("family")
        )
        chosen = ranked.sort("rank", "place").head(self.num_models).select("hub_id")
        return models.join(chosen, on="hub_id", how="semi", maintain_order="left")


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
class Study:
    """Variants side by side.

    Attributes:
        name: Of the command, the MLflow experiment and the results' ``evaluation``.
        question: What it asks.
        variants: In the order of the table.
        baseline: Name of the variant that the others are compared with.
        groups: Named sets of families; errors are summarised within each, beside all.
        embed_all: Whether all models are embedded, or those with a property to predict only.
    """

    name: str
    question: str
    variants: tuple[Variant, ...]
    baseline: str
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    embed_all: bool = False

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
