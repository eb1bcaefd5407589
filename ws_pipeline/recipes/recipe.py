"""The recipe: one frozen value that names every choice of an experiment. No I/O.

Belongs here: the value, its digest, its flat form. Does not: the recipes themselves
(:mod:`ws_pipeline.recipes.catalog`) and the meaning of any field, which lives beside its owner.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ws_pipeline.backbone.config import BackboneConfig, LossConfig, TrainingConfig, ViewConfig
from ws_pipeline.errors import ConfigError
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.hub.selection import SelectionPolicy
from ws_pipeline.tokens.corpus import SplitPolicy
from ws_pipeline.tokens.corpus_rules import CorpusPolicy
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.mixture import Mixture

Scalar = str | int | float | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A full configuration, from which repos go in to how sure the numbers must be.

    Attributes:
        name: Names the Dagster partition, the MLflow run and the CLI flag.
        description: One sentence, with the expected cost.
        selection: Which repos of the hub are fetched.
        corpus: Which of the tokenised models go in: copies, near copies, share of a lineage.
        splits: How models are divided into train, val and test.
        layout: How layers are cut into tokens.
        mixture: How often each family is drawn.
        backbone: The network.
        loss: What it minimises.
        views: What the encoder sees in place of the clean tokens.
        training: The optimiser's path.
        evaluation: What is asked of the result.
    """

    name: str
    description: str
    selection: SelectionPolicy = field(default_factory=SelectionPolicy)
    corpus: CorpusPolicy = field(default_factory=CorpusPolicy)
    splits: SplitPolicy = field(default_factory=SplitPolicy)
    layout: TokenLayout = field(default_factory=TokenLayout)
    mixture: Mixture = field(default_factory=Mixture)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Check what no single config can: that the parts fit each other."""
        if self.backbone.token_size != self.layout.token_size:
            raise ConfigError(
                f"Recipe {self.name}: backbone.token_size must equal layout.token_size = "
                f"{self.layout.token_size}, got {self.backbone.token_size}"
            )
        if self.backbone.layout != self.layout.kind:
            raise ConfigError(
                f"Recipe {self.name}: backbone.layout must equal layout.kind = "
                f"{self.layout.kind!r}, got {self.backbone.layout!r}"
            )
        if self.loss.contrastive_weight > 0 and self.backbone.projection_size == 0:
            raise ConfigError(
                f"Recipe {self.name}: a contrastive_weight of {self.loss.contrastive_weight:g} "
                "needs a projection head; set backbone.projection_size above 0"
            )

    def digest(self) -> str:
        """Sixty-four hex digits over everything but the description."""
        values = to_dict(self)
        del values["description"]
        return digest_values(values)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain nested JSON values (tuples become lists)."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return values


def digest_values(values: Mapping[str, Any]) -> str:
    """SHA-256 over canonical JSON, in hex."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(recipe: Recipe) -> dict[str, Scalar]:
    """Scalars by dotted name, as MLflow wants its params: `training.num_steps` -> 600.

    A list becomes its JSON text. Names are unique because field names hold no dots.
    """
    flat: dict[str, Scalar] = {}
    _flatten_into(flat, "", to_dict(recipe))
    return flat


def _flatten_into(flat: dict[str, Scalar], prefix: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            _flatten_into(flat, f"{path}.", value)
        elif isinstance(value, str | int | float | bool):
            flat[path] = value
        else:
            flat[path] = json.dumps(value)
