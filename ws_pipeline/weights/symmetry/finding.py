"""The permutable groups of a model, decided from names, shapes and config alone. No I/O.

Each family's rules answer for themselves: groups, or why there are none. What no rule knows has no
group; a wrong permutation would change the network, a missing one costs nothing. Which activation
stands between two layers is not looked at: every usual one acts on units one by one or alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.symmetry.chains import find_cnn, find_mlp, find_sequential
from ws_pipeline.weights.symmetry.groups import Shapes, Symmetry
from ws_pipeline.weights.symmetry.residual_networks import find_residual_network
from ws_pipeline.weights.symmetry.transformers import STREAM, find_transformer

_FINDERS = (find_mlp, find_cnn, find_transformer, find_residual_network)


def find_symmetry(
    shapes: Shapes,
    config: Mapping[str, Any],
    *,
    stream: bool = True,
    sequential: bool = False,
) -> Symmetry:
    """Find what may be permuted in a model.

    Args:
        shapes: Of all its tensors.
        config: Its ``config.json``; names the family and the number of heads.
        stream: Whether to permute a transformer's residual stream too. Exact, but every layer
            follows it, so that one permutation moves all tensors.
        sequential: The caller's word that the model is one ``nn.Sequential`` of dense layers,
            plain convolutions (not transposed), BatchNorm, pooling and elementwise functions; names
            alone cannot prove it.

    Returns:
        The groups; without any, ``gaps`` says why.
    """
    if sequential:
        return find_sequential(shapes, config)
    if "auto_map" in config:
        return Symmetry(gaps=("the config names code of its own, whose wiring is not known",))
    for find in _FINDERS:
        found = find(shapes, config)
        if found is not None:
            groups = tuple(group for group in found.groups if stream or group.name != STREAM)
            return Symmetry(groups=groups, gaps=found.gaps)
    model_type = config.get("model_type")
    return Symmetry(gaps=(f"no wiring is known of model_type {model_type!r}",))


def shapes_of(tensors: Sequence[TensorInfo]) -> Shapes:
    """Return the shapes of a checkpoint's tensors by name."""
    return {tensor.name: tensor.shape for tensor in tensors}
