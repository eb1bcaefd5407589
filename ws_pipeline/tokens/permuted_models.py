"""The models of a corpus, each seen with its hidden units in a random order. Reads manifests.

An order is a function of (seed, epoch, model): an epoch is as many windows as there are models, so
a model that is drawn again has new orders, and a resumed run has those of the undisturbed one. What
is known of an architecture is kept once for all of its models. Not here: windows (``windows``),
what may be permuted (``model_symmetry``).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_values import ModelValues
from ws_pipeline.tokens.model_symmetry import ModelSymmetry, draw_view, read_model_symmetry

MAX_VIEWS = 256
"""Views that are kept, drawn orders included: several batches of the largest windows."""


class PermutedModels:
    """Permuted views of models, drawn as they are asked for; the last are kept.

    Args:
        store: Where the manifests are.
        manifests: Key of each model's tokens manifest.
        seed: Of the draws.
    """

    def __init__(self, store: Store, manifests: Sequence[str], *, seed: int) -> None:
        self._store = store
        self._manifests = manifests
        self._seed = seed
        self._models: dict[int, ModelSymmetry] = {}
        self._known: dict[ModelSymmetry, ModelSymmetry] = {}
        self._views: OrderedDict[tuple[int, int], ModelValues] = OrderedDict()

    def view(self, values: ModelValues, model: int, window: int) -> ModelValues:
        """Return a model as a window shows it; as it is stored if no symmetry of it is known.

        Args:
            values: The model's own.
            model: Its number.
            window: Number of the window in the whole training.
        """
        epoch = window // len(self._manifests)
        view = self._views.pop((model, epoch), None)
        if view is None:
            key = (self._seed, epoch, model)
            view = draw_view(values, self._symmetry(model), key)
        self._views[model, epoch] = view
        if len(self._views) > MAX_VIEWS:
            self._views.popitem(last=False)
        return view

    def _symmetry(self, model: int) -> ModelSymmetry:
        if model not in self._models:
            found = without_scale(read_model_symmetry(self._store, self._manifests[model]))
            self._models[model] = self._known.setdefault(found, found)
        return self._models[model]


def without_scale(model: ModelSymmetry) -> ModelSymmetry:
    """Return what models of one architecture have in common; its scale is not looked at here."""
    layers = (replace(layer, mean=0.0, std=1.0, scale_exponent=0) for layer in model.token_layers)
    return replace(model, token_layers=tuple(layers))
