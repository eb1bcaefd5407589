"""Altered copies of held-out models, as backbones and baselines see them. Reads shards.

Not here: what the copies' vectors are worth (``robustness``). The nearest parent by weights is
searched among the known parents of the family: as they stand, by singular values, and, for permuted
copies, after alignment to every candidate (git re-basin), which is the bar for embeddings.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ws_pipeline.backbone.embed import embed_tokens
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.sweep import layout_of
from ws_pipeline.evaluation.alterations import ALTERATIONS, PERMUTED, alter_layers
from ws_pipeline.evaluation.features import (
    L2,
    L2_ALIGNED,
    SINGULAR_VALUES,
    name_blocks,
)
from ws_pipeline.evaluation.model_weights import layer_reader, matrix_tokens
from ws_pipeline.evaluation.robustness import AlteredCopies
from ws_pipeline.evaluation.weight_distances import measure_distances
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_matrices import read_matrices
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.manifests import read_token_layers
from ws_pipeline.tokens.model_symmetry import ModelSymmetry, draw_view, read_model_symmetry
from ws_pipeline.tokens.shards import unpack_model
from ws_pipeline.tokens.windows import ModelTokens
from ws_pipeline.weights.layer_matrix import LayerMatrix
from ws_pipeline.weights.symmetry.alignment import align_model
from ws_pipeline.weights.symmetry.matrix_order import shapes_of_layers
from ws_pipeline.weights.symmetry.permutation import draw_permutation, permute_state

MAX_COPIES = 64
"""Held-out models that are altered, evenly spaced among those of at most `MAX_PARAMS`."""

MAX_PARAMS = 5_000_000
"""Larger models are not altered: six copies of each are embedded, and aligned to candidates."""

MAX_CANDIDATES = 32
"""Known parents of a family that a permuted copy is aligned to; 14 ms each for a small ViT."""

FloatArray = NDArray[np.float64]
State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyMaker:
    """What altered copies are made from and read with.

    Attributes:
        store: Where the shards are.
        backbones: By the names of their representations.
        parents: Who is whose parent, ``(models, models)``; row: the child.
        window: Tokens that a backbone sees at once, halos included.
        seed: Of permutations, noise and adapters.
    """

    store: Store
    corpus: pl.DataFrame
    backbones: Mapping[str, Backbone]
    parents: NDArray[np.bool_]
    window: int
    seed: int

    def make(self) -> list[AlteredCopies]:
        """Return the copies of every alteration that some model has, with vectors and parents."""
        test = (self.corpus["split"] == "test") & (self.corpus["num_values"] <= MAX_PARAMS)
        rows = np.flatnonzero(test.to_numpy())
        rows = rows[:: max(1, -(-len(rows) // MAX_COPIES))]
        records = self.corpus.to_dicts()
        read = layer_reader(self.store)
        found = []
        for number, name in enumerate((PERMUTED, *ALTERATIONS)):
            kept, copies = [], []
            for row in rows.tolist():
                generator = np.random.default_rng((self.seed, number, row))
                if name == PERMUTED:
                    layers = self._permute(records[row], row)
                    if layers is None:
                        continue
                else:
                    layers = alter_layers(list(read(records[row])), name, generator)
                kept.append(row)
                copies.append(layers)
            if kept:  # no held-out model, or none whose units can be permuted
                found.append(self._read(name, np.array(kept, dtype=np.int64), copies, records))
        return found

    def _permute(self, record: Mapping[str, Any], row: int) -> list[LayerMatrix] | None:
        """Return the layers in a random order of units; None where no symmetry is known."""
        model = read_model_symmetry(self.store, record["manifest"])
        if not model.symmetry.groups:
            return None
        tokens = ModelTokens.open(self.store, record, TokenLayout())
        view = draw_view(tokens.values, model, (self.seed, row))
        return list(read_matrices(view, read_token_layers(record)))

    def _read(
        self,
        name: str,
        rows: NDArray[np.int64],
        copies: Sequence[Sequence[LayerMatrix]],
        records: Sequence[Mapping[str, Any]],
    ) -> AlteredCopies:
        """Return the copies' vectors and their nearest parents."""
        wholes = {}
        likes = [read_token_layers(records[row]) for row in rows.tolist()]
        for backbone_name, backbone in self.backbones.items():
            layout = layout_of(backbone)
            models = [matrix_tokens(c, like, layout) for c, like in zip(copies, likes, strict=True)]
            found = embed_tokens(backbone, models, window=self.window)
            wholes[backbone_name] = np.array([vector.embedding for vector in found])
        hits = {baseline: np.full(len(rows), np.nan) for baseline in (L2, SINGULAR_VALUES)}
        if name == PERMUTED:
            hits[L2_ALIGNED] = np.full(len(rows), np.nan)
        for copy, row in enumerate(rows.tolist()):
            candidates = self._candidates(row)
            if not self.parents[row, candidates].any():
                continue
            others = [list(layer_reader(self.store)(records[each])) for each in candidates]
            distances = measure_distances([list(copies[copy]), *others])
            for baseline in (L2, SINGULAR_VALUES):
                nearest = candidates[int(distances[baseline][0, 1:].argmin())]
                hits[baseline][copy] = float(self.parents[row, nearest])
            if name == PERMUTED:
                hits[L2_ALIGNED][copy] = self._align(row, candidates, records)
        return AlteredCopies(
            name=name, originals=rows, vectors=name_blocks(wholes), parent_hits=hits
        )

    def _candidates(self, row: int) -> NDArray[np.int64]:
        """Return the known parents of a model's family but itself, the true one among them."""
        family = (self.corpus["family"] == self.corpus["family"][row]).to_numpy()
        known = self.parents.any(axis=0) & family
        known[row] = False
        small = (self.corpus["num_values"] <= MAX_PARAMS).to_numpy()
        found = np.flatnonzero(known & small)
        mine = found[self.parents[row, found]]
        others = found[~self.parents[row, found]]
        return np.sort(np.concatenate([mine, others[: MAX_CANDIDATES - len(mine)]]))

    def _align(
        self, row: int, candidates: NDArray[np.int64], records: Sequence[Mapping[str, Any]]
    ) -> float:
        """Return whether the true parent is nearest after alignment to every candidate."""
        model = read_model_symmetry(self.store, records[row]["manifest"])
        state = self._state(records[row])
        moved = permute_state(state, _permutation(model, (self.seed, row)))
        best, nearest = np.inf, -1
        for candidate in candidates.tolist():
            reference = self._state(records[candidate])
            shared = shared_tensors(moved, reference)
            if not shared:
                continue
            generator = np.random.default_rng((self.seed, row, candidate))
            aligned = align_model(
                reference, moved, model.symmetry, generator=generator, names=shared
            )
            if aligned.distance_after < best:
                best, nearest = aligned.distance_after, candidate
        return float(nearest >= 0 and self.parents[row, nearest])

    def _state(self, record: Mapping[str, Any]) -> State:
        """Return a model's tensors, restored from its shard."""
        manifest = self.store.manifests.read(record["manifest"])
        with tempfile.TemporaryDirectory() as folder:
            paths = unpack_model(self.store, manifest, Path(folder))
            return {name: tensor for path in paths for name, tensor in load_file(str(path)).items()}


def shared_tensors(one: State, other: State) -> list[str]:
    """Return tensors of equal shape; none where more than a head (weight and bias) differs."""
    names = [name for name in sorted(one) if one[name].dtype.kind == "f"]
    if {name for name in other if other[name].dtype.kind == "f"} != set(names):
        return []
    shared = [name for name in names if one[name].shape == other[name].shape]
    return shared if len(names) - len(shared) <= 2 else []


def _permutation(model: ModelSymmetry, key: tuple[int, ...]) -> Any:
    """Return the permutation that :func:`draw_view` draws from the key."""
    shapes = shapes_of_layers(model.layers)
    return draw_permutation(model.symmetry, shapes, generator=np.random.default_rng(key))
