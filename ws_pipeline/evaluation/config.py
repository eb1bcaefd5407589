"""What is evaluated and how sure the numbers must be. Frozen values; no I/O."""

from dataclasses import dataclass, field

from ws_pipeline.errors import ConfigError
from ws_pipeline.evaluation.generation_config import GenerationConfig

MAX_BOOTSTRAP = 100_000
"""Resamples beyond this buy digits that nobody reads and memory that nobody has."""

MAX_RECALL_K = 1_000
"""Longest list of neighbours that a recall may ask for."""

PROBES = ("ridge", "boosted", "attention")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """The evaluations of one recipe.

    Attributes:
        targets: Properties to predict, by their name in a card's model-index, or, after
            ``factor:``, in its generating factors.
        probes: How features are read: ``ridge`` always, ``boosted`` trees and ``attention`` over
            layer vectors over all families.
        held_out: Probes are fitted without one value of these and scored on it, value by value:
            ``family`` or a generating factor.
        lambdas: Ridge penalties to choose from, on features standardised over the training split.
        num_bootstrap: Resamples behind every interval.
        confidence: Mass of the percentile intervals.
        ks: List lengths of recall@k.
        seed: Of the resampling and of breaking ties. The seed that a backbone was trained with is
            an argument of the evaluations, not of this config.
        min_test_models: A score over fewer held-out models is null: noise is not reported.
        min_train_models: A probe is not fitted on fewer models.
        min_val_models: With fewer, lambda is chosen by cross-validation over training lineages.
        min_lineages: An interval needs this many lineages to resample.
        generation: The study of generated weights.
    """

    targets: tuple[str, ...] = (
        "accuracy",
        "generalization_gap",
        "epoch",
        "factor:learning_rate",
    )
    probes: tuple[str, ...] = ("ridge", "boosted", "attention")
    held_out: tuple[str, ...] = ("family", "dataset", "learning_rate")
    # 1e-2 to 1e6 in half decades: from as good as no penalty to as good as the training mean.
    lambdas: tuple[float, ...] = tuple(10.0 ** (step / 2) for step in range(-4, 13))
    num_bootstrap: int = 1_000
    confidence: float = 0.95
    ks: tuple[int, ...] = (1, 5, 10)
    seed: int = 0
    min_test_models: int = 8
    min_train_models: int = 8
    min_val_models: int = 8
    min_lineages: int = 5
    generation: GenerationConfig = field(default_factory=GenerationConfig)

    def __post_init__(self) -> None:
        """Check bounds.

        Raises:
            ConfigError: With the field, its bound and the value that came.
        """
        if not self.targets or not self.lambdas or not self.ks:
            raise ConfigError(
                "evaluation: targets, lambdas and ks must each name at least one value"
            )
        if "ridge" not in self.probes or not set(self.probes) <= set(PROBES):
            raise ConfigError(
                f"evaluation: probes must hold 'ridge' and only {', '.join(PROBES)}, got"
                f" {self.probes!r}"
            )
        _check("lambdas", min(self.lambdas), 1e-12, 1e12)
        _check("lambdas", max(self.lambdas), 1e-12, 1e12)
        _check("num_bootstrap", self.num_bootstrap, 10, MAX_BOOTSTRAP)
        _check("confidence", self.confidence, 0.5, 0.999)
        _check("ks", min(self.ks), 1, MAX_RECALL_K)
        _check("ks", max(self.ks), 1, MAX_RECALL_K)
        _check("seed", self.seed, 0, 2**32 - 1)
        # R^2 over two models is 1 or nonsense; three is the least that says anything at all.
        for name in ("min_test_models", "min_train_models", "min_val_models", "min_lineages"):
            _check(name, getattr(self, name), 3, 1_000_000)


def _check(name: str, value: int | float, low: int | float, high: int | float) -> None:
    """Refuse a value outside ``[low, high]``."""
    if not low <= value <= high:
        raise ConfigError(f"evaluation: {name} must lie in [{low:g}, {high:g}], got {value!r}")
