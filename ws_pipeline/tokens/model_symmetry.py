"""What may be permuted in a model of the corpus, from its manifests. Reads the store.

The tokens manifest names the layer plan, the plan names the files, and among them is the config:
nothing of the weights is read. A permuted view of a model is then its values seen through
:class:`~ws_pipeline.tokens.permuted_values.PermutedValues`, drawn from a key such as
(seed, epoch, model), so that the same key gives the same view in any process. Every group is drawn
from the key by itself, and only when a tensor is read that it touches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.drawn_permutation import DrawnPermutation, GroupParts, split_groups
from ws_pipeline.tokens.layer_table import DTYPES
from ws_pipeline.tokens.layer_values import ModelValues
from ws_pipeline.tokens.permuted_values import LayerMap, PermutedValues, map_layers
from ws_pipeline.tokens.records import TokenLayer, derive_token_layers
from ws_pipeline.weights.checkpoint import CONFIG_NAME, read_config
from ws_pipeline.weights.plan import Layer
from ws_pipeline.weights.records import layer_from_record
from ws_pipeline.weights.symmetry.finding import find_symmetry
from ws_pipeline.weights.symmetry.groups import Shapes, Symmetry
from ws_pipeline.weights.symmetry.matrix_order import shapes_of_layers


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSymmetry:
    """A model's layers and what may be permuted in them.

    Attributes:
        token_layers: Its tokenised layers.
        layers: Its plan.
        symmetry: What may be permuted in it.
        shapes: Of its tensors.
        parts: The groups, tensor axis by tensor axis.
        placed: Its tokenised layers among the stored values.
    """

    token_layers: tuple[TokenLayer, ...]
    layers: tuple[Layer, ...]
    symmetry: Symmetry
    shapes: Shapes = field(compare=False)
    parts: GroupParts = field(compare=False)
    placed: LayerMap = field(compare=False)


def read_model_symmetry(store: Store, manifest: str) -> ModelSymmetry:
    """Find the symmetry of a model.

    Args:
        store: Where the manifests are.
        manifest: Key of its tokens manifest, as corpus rows have it.
    """
    tokens = store.manifests.read(manifest)
    plan = store.manifests.read(tokens["plan_manifest"])
    layers = tuple(layer_from_record(record) for record in plan["layers"])
    config = _read_config(store, store.manifests.read(plan["files_manifest"]))
    shapes = shapes_of_layers(layers)
    symmetry = find_symmetry(shapes, config)
    token_layers = derive_token_layers(plan["layers"])
    return ModelSymmetry(
        token_layers=token_layers,
        layers=layers,
        symmetry=symmetry,
        shapes=shapes,
        parts=split_groups(symmetry),
        placed=map_layers(token_layers, layers, dtypes=DTYPES),
    )


def draw_view(values: ModelValues, model: ModelSymmetry, key: Sequence[int]) -> ModelValues:
    """Return the values of a randomly permuted copy of a model; the model's own without symmetry.

    Args:
        values: The model's own.
        model: What may be permuted.
        key: Decides the draw.
    """
    if not model.symmetry.groups:
        return values
    permutation = DrawnPermutation(model.symmetry, model.parts, model.shapes, key)
    return PermutedValues(values, model.placed, permutation)


def _read_config(store: Store, files_manifest: Mapping[str, Any]) -> dict[str, Any]:
    for file in files_manifest["files"]:
        if file["path"] == CONFIG_NAME:
            return read_config(store.blobs.local_path(file["sha256"]))
    return {}
