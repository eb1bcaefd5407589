"""The command that embeds models and names their nearest neighbours in the corpus."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ws_pipeline.cli.arguments import (
    EndpointOption,
    HomeOption,
    JsonOption,
    find_home,
)
from ws_pipeline.cli.completion import complete_recipes
from ws_pipeline.cli.console import out, print_json, print_table
from ws_pipeline.cli.home import REPO_ID, find_local, store_root
from ws_pipeline.cli.lineage import check_recipes
from ws_pipeline.errors import MissingInputError, Reason, RefusedError
from ws_pipeline.settings import default_recipe

NUM_NEIGHBOURS = 5
MAX_GB = 20.0
"""Of one model that is fetched; 10 billion parameters in 16 bits."""

UNKNOWN_CORPUS = "; no corpus is embedded by this backbone, ws-pipeline evaluate would do that"

OpenModel = Callable[[], AbstractContextManager[Path]]
"""Gives a model's file or folder for as long as it is needed."""


def embed(
    models: Annotated[
        list[str],
        typer.Argument(
            help=".safetensors files, folders of one model each, repos of HOME/hub or of a hub."
        ),
    ],
    *,
    to: Annotated[Path | None, typer.Option("--out", help="Parquet file to write.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Use this recipe's backbone. Default: $WS_RECIPE, else tiny.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option("--backbone", help="Use the backbone in this folder.")
    ] = None,
    num: Annotated[
        int, typer.Option("--neighbours", min=0, help="How many of the corpus to name.")
    ] = NUM_NEIGHBOURS,
    as_json: JsonOption = False,
    endpoint: EndpointOption = "",
    max_gb: Annotated[
        float, typer.Option("--max-gb", min=0.0, help="What a model may have that is fetched.")
    ] = MAX_GB,
    home: HomeOption = None,
) -> None:
    """Embed models, and name their nearest neighbours in the corpus.

    A repo behind --endpoint is fetched, checked and embedded without entering the corpus, one model
    at a time; nothing of it is kept.

    --out writes a Parquet file with the columns model and embedding, --json prints both and the
    neighbours. Neighbours are known where the corpus was embedded by the same backbone.
    """
    if to is not None and to.is_dir():
        raise RefusedError(
            f"--out must be a Parquet file, {str(to)!r} is a folder.", reason=Reason.MISUSE
        )
    folder = find_home(home)
    sources = find_models(models, folder, endpoint, max_bytes=int(max_gb * 1e9))
    chosen = find_backbone(folder, recipe, backbone)
    rows = list(embed_all(chosen, dict(zip(models, sources, strict=True))))
    if to is not None:
        write_vectors(rows, to)
    found = add_neighbours(rows, folder, chosen, num) if num and (as_json or to is None) else rows
    if as_json:
        print_json(found)
    elif to is not None:
        out().print(f"Embedded {len(rows)} models into {to}", markup=False)
    else:
        show_neighbours(found)


def find_models(
    models: Sequence[str], home: Path, endpoint: str, *, max_bytes: int
) -> list[OpenModel]:
    """Return how each model is opened: paths first, then repos of the embedded hub, then of a hub.

    Where an endpoint is given, that is the only place to look.

    Raises:
        MissingInputError: Names the first that is nowhere.
    """
    from ws_pipeline.cli.remote import fetch_model
    from ws_pipeline.hub.connection import find_endpoint

    url = find_endpoint(endpoint)
    found: list[OpenModel] = []
    for name in models:
        path = None if endpoint else find_local(home, name)
        if path is not None:
            found.append(partial(_local, path))
        elif url and REPO_ID.fullmatch(name):
            found.append(partial(fetch_model, url, name, home, max_bytes=max_bytes))
        else:
            raise MissingInputError(
                f"There is no file or folder {name!r}, nor a repo of that name in HOME/hub. A model"
                " is a .safetensors file, a folder that holds one, or such a repo; check the path, "
                "or add --endpoint https://huggingface.co to a repo id OWNER/NAME of that hub."
                if not endpoint
                else f"{name!r} is no repo id OWNER/NAME, and with --endpoint only repos of that "
                "hub are looked for; leave --endpoint out for files and folders."
            )
    return found


def _local(path: Path) -> AbstractContextManager[Path]:
    return contextlib.nullcontext(path)


def embed_all(backbone: Path, models: Mapping[str, OpenModel]) -> Iterator[dict[str, Any]]:
    """Yield name and vector of each model."""
    from ws_pipeline.backbone.embed import embed_checkpoint
    from ws_pipeline.backbone.loading import load_backbone

    model = load_backbone(backbone)
    for name, open_model in models.items():
        with open_model() as source:
            yield {"model": name, "embedding": embed_checkpoint(model, source)["embedding"]}


def write_vectors(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write one row per model: model, embedding; what stands where is in the file's metadata."""
    import json

    import polars as pl

    from ws_pipeline.backbone.config import EMBEDDING_VERSION
    from ws_pipeline.backbone.embedding_blocks import BLOCK_SIZES

    path.parent.mkdir(parents=True, exist_ok=True)
    schema = {"model": pl.String(), "embedding": pl.List(pl.Float32())}
    blocks = json.dumps(dict(BLOCK_SIZES))
    metadata = {"embedding_version": EMBEDDING_VERSION, "blocks": blocks}
    pl.DataFrame(rows, schema=schema).write_parquet(path, metadata=metadata)


def add_neighbours(
    rows: Sequence[Mapping[str, Any]], home: Path, backbone: Path, num: int
) -> list[dict[str, Any]]:
    """Return the rows with `neighbours`, [{model, similarity}]; none without a fitting corpus."""
    import dataclasses

    import numpy as np

    from ws_pipeline.backbone.neighbours import find_neighbours
    from ws_pipeline.defs.runs import read_embeddings
    from ws_pipeline.storage.store import Store

    corpus = read_embeddings(Store.open(store_root(home)), backbone)
    if corpus is None or not corpus.height:
        return [{**row, "neighbours": []} for row in rows]
    vectors = np.array(corpus["embedding"].to_list(), dtype=np.float64)
    names = corpus["repo_id"].to_list()
    found = []
    for row in rows:
        query = np.array(row["embedding"], dtype=np.float64)
        near = find_neighbours(query, vectors, names, num=num)
        found.append({**row, "neighbours": [dataclasses.asdict(each) for each in near]})
    return found


def show_neighbours(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of the models and their neighbours."""
    for row in rows:
        near = row.get("neighbours", [])
        text = f"{row['model']}: {len(row['embedding'])} numbers" + (
            ", nearest in the corpus:" if near else UNKNOWN_CORPUS
        )
        out().print(text, markup=False)
        if near:
            columns = ("model", "similarity")
            print_table(columns, [[each[name] for name in columns] for each in near])


def find_backbone(home: Path, recipe: str | None, backbone: Path | None) -> Path:
    """Return the folder of the backbone that was asked for.

    Raises:
        RefusedError: Both were named.
        MissingInputError: There is none.
    """
    if recipe is not None and backbone is not None:
        raise RefusedError("Name --recipe or --backbone, not both.", reason=Reason.MISUSE)
    if backbone is not None:
        if not (backbone / "config.json").is_file():
            raise MissingInputError(
                f"There is no backbone in {str(backbone)!r}; name a folder with model.safetensors "
                "and config.json that ws-pipeline train wrote."
            )
        return backbone
    name = recipe or default_recipe()
    check_recipes([name])
    from ws_pipeline.defs.runs import find_model

    return find_model(home, name)
