"""The Python interface: what one would do in a notebook, in a handful of functions.

``import ws_pipeline as ws`` gives all of them; each imports what it needs when it is called. Does
I/O. Not here: the crawl, the lineage and the training, which run as assets (``ws-pipeline``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from ws_pipeline.errors import WeightsError

if TYPE_CHECKING:
    import polars as pl

    from ws_pipeline.backbone.loss import Windows
    from ws_pipeline.backbone.model import Backbone
    from ws_pipeline.generation.config import DensityConfig
    from ws_pipeline.generation.like import GenerationResult


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLayer:
    """One layer of a model and its weights.

    Attributes:
        name: The weight tensor.
        bias_name: Its partner bias, the last column of the matrix; "" for none.
        role: linear, conv2d, fused_qkv, ...: see docs/formats.md.
        block: Ordinal of the numbered block; -1 outside any.
        matrix: ``(outputs, inputs)``, or ``(outputs, inputs + 1)`` with a bias; float32, or float64
            where the file says so.
    """

    name: str
    bias_name: str
    role: str
    block: int
    matrix: npt.NDArray[Any]


def read_layers(path: str | Path) -> Iterator[ModelLayer]:
    """Read the layers of a checkpoint, one after the other, in the order of the network.

    Args:
        path: A safetensors file, a sharded folder or a repo folder.

    Yields:
        What is tokenised of it. Buffers, tied copies and integer tensors are left out;
        ``ws-pipeline inspect`` lists them with the reason.

    Raises:
        HeaderError: If a header breaks the format or our bounds.
        WeightsError: ``quantized`` for packed weights.
    """
    from ws_pipeline.weights.checkpoint import Checkpoint
    from ws_pipeline.weights.dtypes import widen
    from ws_pipeline.weights.matrix import join_matrix
    from ws_pipeline.weights.plan import plan_layers

    checkpoint = Checkpoint.open(path)
    plan = plan_layers(list(checkpoint.tensors.values()), checkpoint.config)
    plan.require_unpacked()
    for layer in plan.tokenised:
        bias = checkpoint.read_flat(layer.bias_name) if layer.bias_name else None
        matrix = widen(join_matrix(layer, checkpoint.read(layer.name), bias))
        yield ModelLayer(
            name=layer.name,
            bias_name=layer.bias_name,
            role=str(layer.role),
            block=layer.block,
            matrix=matrix,
        )


def tokenize(
    path: str | Path, *, token_size: int = 64, layout: Literal["dense", "sliced"] = "dense"
) -> "Windows":
    """Cut a checkpoint into tokens: one window that holds the whole model.

    Args:
        path: As for :func:`read_layers`.
        token_size: Weights in a token.
        layout: ``dense`` cuts whole layers, ``sliced`` every row by itself.

    Returns:
        ``tokens`` and ``mask`` ``(1, tokens, token_size)``, ``positions`` ``(1, tokens, 3)``: place
        in the model, layer, place in the layer; ``scale`` ``(1, tokens, 2)``: mean and log std of
        the layer. ``Backbone.encode(*windows)`` takes them as they are.

    Raises:
        WeightsError: ``non_finite_weights``, or nothing in it can be tokenised.
    """
    import torch

    from ws_pipeline.backbone.expansion import to_windows
    from ws_pipeline.tokens.layout import TokenLayout
    from ws_pipeline.tokens.windows import ModelTokens, read_windows

    model = ModelTokens.open_path(path, TokenLayout(kind=layout, token_size=token_size))
    batch = read_windows([model], [(0, model.num_tokens)], window_size=model.num_tokens)
    return to_windows(batch, torch.device("cpu"))


def embed(
    models: str | Path | Sequence[str | Path], *, backbone: "Backbone | str | Path"
) -> "pl.DataFrame":
    """Embed models: a vector for each, and one for each of their layers.

    Args:
        models: Checkpoints, as for :func:`read_layers`.
        backbone: A :class:`Backbone`, which stays on its device, or the folder of one
            (`ws-pipeline train` prints it), which goes to the GPU if there is one.

    Returns:
        One row per model: ``model``, ``embedding``, ``layers`` [{name, role, embedding}].

    Raises:
        WeightsError: If nothing of a model can be tokenised; names the model.
    """
    import polars as pl

    from ws_pipeline.backbone.embed import EMBEDDING_SCHEMA, embed_checkpoint
    from ws_pipeline.backbone.loading import load_backbone

    loaded = load_backbone(backbone)
    paths = [models] if isinstance(models, str | Path) else list(models)
    rows = []
    for path in paths:
        try:
            record = embed_checkpoint(loaded, path)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}", reason=error.reason) from error
        rows.append({"model": str(path), **record})
    columns = {"model": pl.String(), **EMBEDDING_SCHEMA}
    return pl.DataFrame(rows, schema=columns).select("model", "embedding", "layers")


def generate(
    like: Sequence[str | Path],
    out: str | Path,
    *,
    backbone: "Backbone | str | Path",
    num_models: int = 1,
    density: "DensityConfig | None" = None,
    seed: int = 0,
) -> "GenerationResult":
    """Write new checkpoints that load like the given ones.

    Args:
        like: The anchors: checkpoints of one shape. Their hidden units are aligned.
        out: Folder that gets ``model-000``, ``model-001``, ...
        backbone: A :class:`Backbone`, or its folder; that of recipe ``generation`` gives anchors
            back with their function.
        num_models: How many.
        density: What is drawn from; whole-model kernels by default.
        seed: Of the draws.

    Returns:
        ``models`` [{folder, nearest_anchor, distance}], ``copied`` tensors that could not be
        generated, and ``reconstruction_error`` of the anchors.

    Raises:
        WeightsError: ``conflict`` where the anchors differ in shape.
    """
    from ws_pipeline.backbone.loading import load_backbone
    from ws_pipeline.generation.config import DensityConfig
    from ws_pipeline.generation.like import generate_like

    loaded = load_backbone(backbone)
    paths = [Path(path) for path in like]
    config = density or DensityConfig()
    return generate_like(loaded, paths, Path(out), config=config, num_models=num_models, seed=seed)


def load_zoo(folder: str | Path) -> "pl.DataFrame":
    """Read a trained zoo: what every model is, how it was made and how good it is.

    Args:
        folder: Of the zoo: ``HOME/zoos/NAME``.

    Returns:
        Its index, one row per checkpoint: name, architecture (``family``), data set, factors as
        JSON, accuracies, base model; and ``path``, the folder that :func:`read_layers` takes.

    Raises:
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    import polars as pl

    from ws_pipeline.zoo.index import REPOS_FOLDER, read_index

    repos = Path(folder).resolve() / REPOS_FOLDER
    return read_index(Path(folder)).with_columns(
        path=pl.concat_str(pl.lit(f"{repos}/"), pl.col("name"))
    )
