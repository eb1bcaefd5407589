"""What is drawn from, and what is kept of the draws. Frozen values; no torch, no I/O.

The kinds of densities differ in how they mix anchors:

=============  ====================================================================================
``token-kde``  each token follows an anchor of its own: SANE's density (arXiv 2406.09997)
``model-kde``  all tokens follow the same anchor: a kernel around whole models
``gaussian``   the anchors' mean at each place; the spread itself is the noise's unit
``subspace``   a Gaussian over whole models, of rank (anchors - 1): tokens stay correlated
``blend``      a point between the anchors, Dirichlet weights, the same for all tokens
=============  ====================================================================================

Ours are the two last and `model-kde`: a network's layers only work together.
"""

from dataclasses import dataclass

from ws_pipeline.errors import ConfigError

DENSITY_KINDS = ("token-kde", "model-kde", "gaussian", "subspace", "blend")

MAX_BANDWIDTH = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DensityConfig:
    """What is drawn from.

    Attributes:
        kind: How anchors are mixed.
        bandwidth: Standard deviation of the noise, in units of the anchors' spread at each place.
        concentration: Of the Dirichlet weights of `blend`: below 1 draws lie near single anchors.
    """

    kind: str = "model-kde"
    bandwidth: float = 0.1
    concentration: float = 0.3

    def __post_init__(self) -> None:
        """Check bounds; ConfigError names the field, its bound and the value."""
        if self.kind not in DENSITY_KINDS:
            known = ", ".join(DENSITY_KINDS)
            raise ConfigError(f"DensityConfig: kind must be one of {known}, got {self.kind!r}")
        if not 0.0 <= self.bandwidth <= MAX_BANDWIDTH:
            raise ConfigError(
                f"DensityConfig: bandwidth must lie in [0, {MAX_BANDWIDTH:g}], got {self.bandwidth}"
            )
        if not 1e-3 <= self.concentration <= 1e3:
            raise ConfigError(
                f"DensityConfig: concentration must lie in [0.001, 1000], got {self.concentration}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionConfig:
    """How many are drawn, and how many of them are kept.

    Attributes:
        num_candidates: Draws of each round.
        num_kept: The best of them by validation.
        num_rounds: 1 is SUB; with more, the kept models are the anchors of the next round.
    """

    num_candidates: int = 20
    num_kept: int = 3
    num_rounds: int = 1

    def __post_init__(self) -> None:
        """Check bounds; ConfigError names the field, its bound and the value."""
        for name, low, high in (
            ("num_candidates", 1, 10_000),
            ("num_kept", 1, self.num_candidates),
            ("num_rounds", 1, 100),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"SelectionConfig: {name} must lie in [{low}, {high}], "
                    f"got {getattr(self, name)}"
                )
