"""Composition: does the diversity of what a backbone is trained on matter more than its size?

Nested populations of the corpus' zoos (families whose cards state generating factors) and of its
hub (all others), at the same steps:

- size at fixed diversity: few, more and all models of one zoo and of all zoos;
- diversity at fixed size: one, two or all data sets of one architecture; one or all architectures;
- the hub alone, hub and zoos.

Errors and generated weights are measured within the zoos, within the hub, within each architecture,
and on either side of what a variant was trained on. What decides is a contrast: `LARGE` models of
one kind beside `SMALL` models of more kinds. Source of the question: arXiv 2504.10141. No I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.targets import read_card_truth
from ws_pipeline.recipes import Recipe, recipe
from ws_pipeline.studies.study import (
    Contrast,
    Curve,
    Level,
    Population,
    Study,
    Variant,
    name_datasets,
)

SMALL, LARGE = 16, 60
"""Models of the populations of fixed size; the demo's smallest zoo trains on 16 or a few more."""

BASELINE = f"{SMALL} models of all zoos"
"""Beside which the table's variants stand."""

SEEDS = (0, 1, 2)

ZOOS, HUB = "zoos", "hub"

WITHIN = "within "
"""Before an architecture's name: errors on all of its held-out models."""


@dataclass(frozen=True, kw_only=True)
class Zoos:
    """The zoos of a corpus.

    Attributes:
        datasets: Family to its data sets with at least `SMALL` models to train on, those with the
            most first; the families with the most models first.
        every: All data sets of all zoos.
        num_main: Family to the models on its first data set.
    """

    datasets: Mapping[str, tuple[str, ...]]
    every: tuple[str, ...]
    num_main: Mapping[str, int]

    @property
    def families(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self.datasets)

    @property
    def main(self) -> dict[str, str]:
        """Family to its first data set, of the families that have a large enough one."""
        return {family: names[0] for family, names in self.datasets.items() if names}


def composition_study(corpus: pl.DataFrame, *, num_steps: int = 60) -> Study:
    """Return the study of a corpus; a cell takes some twenty seconds of one Zen 4 core.

    Raises:
        MissingInputError: If the corpus has no zoo.
    """
    families, hub = split_families(corpus)
    if not families:
        raise MissingInputError(
            "The composition study needs zoos, models whose cards state generating factors, and "
            "the corpus has none; run ws-pipeline demo first."
        )
    zoos = read_zoos(corpus, families)
    plan = _Plan(base=shorten(recipe("tiny"), num_steps=num_steps), corpus=name_datasets(corpus))
    plan.add_all(zoos, hub)
    plan.add_architectures(zoos)
    plan.add_data_sets(zoos)
    plan.add_hub(zoos, hub)
    return Study(
        name="composition",
        question="Does the diversity of a population matter more than its size?",
        variants=tuple(plan.variants.values()),
        baseline=BASELINE,
        groups={
            ZOOS: frozenset(families),
            HUB: frozenset(hub),
            **{WITHIN + family: frozenset({family}) for family in families},
        },
        generates=True,
        curves=tuple(plan.curves),
        contrasts=tuple(plan.contrasts),
    )


def split_families(corpus: pl.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the families of zoos and of the hub, those with the most models to train on first."""
    factors = read_card_truth(corpus, ()).factors.select("hub_id").unique()
    trained = corpus.filter(pl.col("split") == "train")
    counts = trained.group_by("family").len().sort("len", "family", descending=[True, False])
    made = set(corpus.join(factors, on="hub_id", how="semi")["family"])
    names = counts["family"].to_list()
    return tuple(n for n in names if n in made), tuple(n for n in names if n not in made)


def read_zoos(corpus: pl.DataFrame, families: tuple[str, ...]) -> Zoos:
    """Return what the zoos' models were trained on."""
    rows = name_datasets(corpus.filter(pl.col("family").is_in(families)))
    trained = rows.filter(pl.col("split") == "train")
    counts = trained.group_by("family", "dataset").len()
    counts = counts.sort("len", "dataset", descending=[True, False])
    large = counts.filter(pl.col("len") >= SMALL)
    own = {family: large.filter(pl.col("family") == family) for family in families}
    return Zoos(
        datasets={family: tuple(part["dataset"]) for family, part in own.items()},
        every=tuple(sorted(rows["dataset"].unique())),
        num_main={family: int(part["len"][0]) for family, part in own.items() if len(part)},
    )


def shorten(base: Recipe, *, num_steps: int) -> Recipe:
    """Return a recipe of few steps of half as many windows, measured at its end only."""
    training = replace(
        base.training,
        num_steps=num_steps,
        batch_size=16,
        evaluate_every=num_steps,
        checkpoint_every=num_steps,
        log_every=20,
    )
    return replace(base, training=training)


@dataclass(kw_only=True)
class _Plan:
    """The variants so far, and what is to be read from them."""

    base: Recipe
    corpus: pl.DataFrame
    variants: dict[str, Variant] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)

    def add_all(self, zoos: Zoos, hub: tuple[str, ...]) -> None:
        """Nested sizes of all zoos and of the hub."""
        sizes = [
            self._add_nested("all zoos", Population(families=zoos.families, datasets=zoos.every))
        ]
        if hub:
            sizes.append(self._add_nested("the hub", Population(families=hub)))
        self.curves += sizes

    def _add_nested(self, what: str, population: Population) -> Curve:
        names = [self._add(f"{size} models of {what}", population, size) for size in (SMALL, LARGE)]
        names.append(self._add(f"all models of {what}", population, 0))
        places = {self._count(name): name for name in names}
        levels = tuple(Level(place=place, variants=(name,)) for place, name in places.items())
        return Curve(name=what, axis="size", levels=levels)

    def add_architectures(self, zoos: Zoos) -> None:
        """One architecture or all, each on its first data set."""
        main = zoos.main
        if len(main) < 2:
            return
        every = Population(families=tuple(main), datasets=tuple(sorted(set(main.values()))))
        single = {family: self._add_kind((family,), (data,)) for family, data in main.items()}
        mixed = self._add(f"{SMALL} models of {len(main)} architectures", every, SMALL)
        self.curves.append(
            Curve(
                name="architectures, the first data set of each",
                axis="diversity",
                levels=(
                    Level(place=1, variants=tuple(single.values())),
                    Level(place=len(main), variants=(mixed,)),
                ),
            )
        )
        large = [family for family in main if zoos.num_main[family] >= LARGE]
        if large:
            self.contrasts.append(
                Contrast(
                    name=f"{len(main)} architectures or {LARGE} models of one",
                    narrow=tuple(single[family] for family in large),
                    diverse=(mixed,),
                    small=tuple(single[family] for family in large),
                    large=tuple(self._add_large(family, main[family]) for family in large),
                )
            )

    def add_data_sets(self, zoos: Zoos) -> None:
        """One data set, half of them or all, of each architecture that has several."""
        for family, names in zoos.datasets.items():
            if len(names) < 2:
                continue
            single = tuple(self._add_kind((family,), (name,)) for name in names)
            levels = [Level(place=1, variants=single)]
            half = len(names) // 2
            if len(names) == 2 * half and half > 1:
                parts = (names[:half], names[half:])
                pairs = tuple(self._add_kind((family,), part) for part in parts)
                levels.append(Level(place=half, variants=pairs))
            every = self._add_kind((family,), names)
            levels.append(Level(place=len(names), variants=(every,)))
            name = f"data sets of {family}"
            self.curves.append(Curve(name=name, axis="diversity", levels=tuple(levels)))
            if zoos.num_main[family] >= LARGE:
                self._hold_against_size(family, names, single, every)

    def _hold_against_size(
        self, family: str, names: tuple[str, ...], single: tuple[str, ...], every: str
    ) -> None:
        base = single[0]
        large = self._add_large(family, names[0])
        levels = (Level(place=SMALL, variants=(base,)), Level(place=LARGE, variants=(large,)))
        self.curves.append(Curve(name=f"{family} on {names[0]}", axis="size", levels=levels))
        self.contrasts.append(
            Contrast(
                name=f"{len(names)} data sets of {family} or {LARGE} models of one",
                narrow=single,
                diverse=(every,),
                small=(base,),
                large=(large,),
            )
        )

    def add_hub(self, zoos: Zoos, hub: tuple[str, ...]) -> None:
        """Hub and zoos together."""
        if hub:
            both = Population(families=(*zoos.families, *hub))
            self._add(f"{SMALL} models of hub and zoos", both, SMALL)
            self._add("all models of hub and zoos", both, 0)

    def _add_kind(self, families: tuple[str, ...], datasets: tuple[str, ...]) -> str:
        name = f"{SMALL} models of {' and '.join(families)} on {' and '.join(datasets)}"
        return self._add(name, Population(families=families, datasets=datasets), SMALL)

    def _add_large(self, family: str, dataset: str) -> str:
        population = Population(families=(family,), datasets=(dataset,))
        return self._add(f"{LARGE} models of {family} on {dataset}", population, LARGE)

    def _add(self, name: str, population: Population, num_models: int) -> str:
        """Add a variant where there is none of the name; the name."""
        if name not in self.variants:
            population = replace(population, num_models=num_models)
            factors = {
                "families": str(len(population.families)),
                "data sets": str(len(population.datasets)) if population.datasets else "",
            }
            self.variants[name] = Variant(
                name=name, recipe=self.base, factors=factors, population=population, seeds=SEEDS
            )
        return name

    def _count(self, name: str) -> int:
        """Models that a variant is trained on."""
        trained = self.corpus.filter(pl.col("split") == "train")
        return self.variants[name].population.choose(trained).height
