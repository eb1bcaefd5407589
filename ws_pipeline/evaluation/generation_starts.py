"""Where training can start from: generated weights and every baseline they are held against.

All of one shape, all with BatchNorm statistics of the target's data, all chosen with the same
validation data and as many candidates. No I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.evaluation.generation_config import GenerationConfig
from ws_pipeline.evaluation.generation_population import Population
from ws_pipeline.generation.anchors import align_anchors
from ws_pipeline.generation.config import DensityConfig, SelectionConfig
from ws_pipeline.generation.generator import Generator
from ws_pipeline.generation.scoring import ScoredModel, Scorer
from ws_pipeline.generation.selection import keep_best, select_models
from ws_pipeline.generation.template import Template, Weights
from ws_pipeline.zoo.architectures import build_module, published_names
from ws_pipeline.zoo.datasets.dataset import Dataset
from ws_pipeline.zoo.weights import average_weights

SCRATCH = "scratch"
STATISTICS_INIT = "layer-statistics"
ANCHOR = "anchor"
ANCHOR_NOISE = "anchor-noise"
ENCODE_DECODE = "encode-decode"
BEST_MODEL = "best-training-model"
MEAN_ALIGNED = "mean-aligned"
MEAN_UNALIGNED = "mean-unaligned"
BOOT_SUFFIX = "-boot"
UNALIGNED_SUFFIX = "-unaligned"

BASELINES = (
    SCRATCH,
    STATISTICS_INIT,
    MEAN_UNALIGNED,
    MEAN_ALIGNED,
    ENCODE_DECODE,
    ANCHOR_NOISE,
    ANCHOR,
    BEST_MODEL,
)

_SEED_STRIDE = 1_000_003
"""Between the seeds of two purposes, far more than there are rounds of one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A model before any step of training.

    Attributes:
        method: How it came about.
        model: With what it scores on validation.
        mean_accuracy: Of all draws that it is the best of.
    """

    method: str
    seed: int
    model: ScoredModel
    mean_accuracy: float


def draw_anchors(population: Population, config: GenerationConfig, seed: int) -> list[int]:
    """Draw anchors from the better half of the population; their places in it."""
    count = max(config.num_anchors, len(population.names) // 2)
    generator = np.random.default_rng((seed, _SEED_STRIDE))
    return sorted(generator.permutation(count)[: config.num_anchors].tolist())


class Starts:
    """Makes the starts of one case and seed.

    Args:
        backbone: Encodes and decodes.
        population: Of the case.
        scorer: Of the target's data.
        dataset: The target's.
        config: Of the study.
        seed: Of anchors and draws.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        population: Population,
        scorer: Scorer,
        dataset: Dataset,
        config: GenerationConfig,
        seed: int,
    ) -> None:
        self._backbone = backbone
        self._population = population
        self._scorer = scorer
        self._dataset = dataset
        self._config = config
        self._seed = seed
        chosen = draw_anchors(population, config, seed)
        self.given = [population.weights[index] for index in chosen]
        self.anchors = align_anchors(self.given, population.template.config, seed=seed)

    def make(self) -> list[Start]:
        """Make one start of every method, the baselines first."""
        starts = self._make_baselines()
        for number, density in enumerate(self._config.densities):
            starts.append(self._generate(density, density.kind, self.anchors, rounds=1))
            if number == 0:
                rounds = self._config.num_rounds
                name = density.kind + BOOT_SUFFIX
                starts.append(self._generate(density, name, self.anchors, rounds=rounds))
            if density.kind in {"blend", "gaussian"}:
                name = density.kind + UNALIGNED_SUFFIX
                starts.append(self._generate(density, name, self.given, rounds=1))
        return starts

    def _make_baselines(self) -> list[Start]:
        config, anchors = self._config, self.anchors
        main = self._generator(anchors, config.densities[0])
        drawn = main.draw(config.num_candidates, seed=self._seed)
        noise = _noise_size(self._population.template, drawn, anchors)
        generator = np.random.default_rng((self._seed, 2 * _SEED_STRIDE))
        num = config.num_candidates
        return [
            self._best_of(SCRATCH, [self._initialize(self._seed)]),
            self._best_of(STATISTICS_INIT, self._draw_statistics(generator, num)),
            self._best_of(MEAN_UNALIGNED, [average_weights(self.given)]),
            self._best_of(MEAN_ALIGNED, [average_weights(anchors)]),
            self._best_of(ENCODE_DECODE, main.reconstruct()),
            self._best_of(ANCHOR_NOISE, self._add_noise(noise, generator, num)),
            self._best_of(ANCHOR, anchors),
            self._best_of(BEST_MODEL, [self._population.weights[0]]),
        ]

    def _best_of(self, method: str, candidates: Sequence[Weights]) -> Start:
        scored = [self._scorer.score(weights) for weights in candidates]
        mean = float(np.mean([model.accuracy for model in scored]))
        best = keep_best(scored, 1)[0]
        return Start(method=method, seed=self._seed, model=best, mean_accuracy=mean)

    def _generate(
        self, density: DensityConfig, method: str, anchors: Sequence[Weights], *, rounds: int
    ) -> Start:
        config = self._config
        first = self._generator(anchors, density).draw(config.num_candidates, seed=self._seed)
        if rounds == 1:
            return self._best_of(method, first)
        selection = SelectionConfig(
            num_candidates=config.num_candidates, num_kept=config.num_kept, num_rounds=rounds
        )
        kept = select_models(
            lambda each, num, seed: self._generator(each, density).draw(num, seed=seed),
            anchors,
            self._scorer,
            selection,
            seed=self._seed,
        )
        mean = float(np.mean([model.accuracy for model in kept]))
        return Start(method=method, seed=self._seed, model=kept[0], mean_accuracy=mean)

    def _generator(self, anchors: Sequence[Weights], density: DensityConfig) -> Generator:
        return Generator(self._backbone, self._population.template, anchors, density)

    def _initialize(self, seed: int) -> Weights:
        plan = self._population.plan
        module = build_module(plan.architecture, plan.sizes, self._dataset, seed=seed)
        saved = module.state_dict()
        return {name: saved[own].numpy() for own, name in published_names(module).items()}

    def _draw_statistics(self, generator: np.random.Generator, num: int) -> list[Weights]:
        """Draw every layer from a Gaussian of the collection's mean and typical spread."""
        template = self._population.template
        models = [template.to_matrices(weights) for weights in self._population.weights]
        means = np.array([[matrix.mean() for matrix in model] for model in models]).mean(axis=0)
        spreads = np.array([[matrix.std() for matrix in model] for model in models])
        typical = np.exp(np.log(np.maximum(spreads, np.finfo(np.float32).tiny)).mean(axis=0))
        return [
            template.to_weights(
                [
                    mean + spread * generator.standard_normal(matrix.shape)
                    for matrix, mean, spread in zip(models[0], means, typical, strict=True)
                ]
            )
            for _ in range(num)
        ]

    def _add_noise(
        self, sizes: Sequence[float], generator: np.random.Generator, num: int
    ) -> list[Weights]:
        """Return anchors with Gaussian noise of a given size in each layer, in turn."""
        template = self._population.template
        noisy: list[Weights] = []
        for index in range(num):
            matrices = template.to_matrices(self.anchors[index % len(self.anchors)])
            noisy.append(
                template.to_weights(
                    [
                        matrix + size * generator.standard_normal(matrix.shape)
                        for matrix, size in zip(matrices, sizes, strict=True)
                    ]
                )
            )
        return noisy


def _noise_size(
    template: Template, drawn: Sequence[Weights], anchors: Sequence[Weights]
) -> list[float]:
    """Root mean square distance of draws to their nearest anchor, layer by layer."""
    known = [template.to_matrices(weights) for weights in anchors]
    squares = []
    for weights in drawn:
        own = template.to_matrices(weights)
        pairs = [[np.mean((a - b) ** 2) for a, b in zip(own, k, strict=True)] for k in known]
        squares.append(min(pairs, key=sum))
    return [float(size) for size in np.sqrt(np.mean(squares, axis=0))]
