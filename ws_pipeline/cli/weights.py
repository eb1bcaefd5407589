"""The commands about single checkpoints: inspect, tokens, embed, generate."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ws_pipeline.cli.arguments import (
    DEFAULT_RECIPE,
    EndpointOption,
    HomeOption,
    JsonOption,
    RecipeOption,
    add_command,
    find_home,
)
from ws_pipeline.cli.console import out, print_json, wide
from ws_pipeline.cli.embedding import embed
from ws_pipeline.cli.home import check_inputs, find_repo
from ws_pipeline.cli.lineage import check_recipes
from ws_pipeline.errors import MissingInputError, Reason, RefusedError

PANEL = "Checkpoints"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(
        app,
        inspect,
        "ws-pipeline inspect model.safetensors",
        "ws-pipeline inspect sharded-folder/ --json",
        "ws-pipeline inspect zoo/NAME --json              a repo of HOME/hub",
        "ws-pipeline inspect OWNER/NAME --endpoint https://huggingface.co",
        panel=PANEL,
    )
    add_command(
        app,
        embed,
        "ws-pipeline embed zoo/NAME                       its nearest neighbours in the corpus",
        "ws-pipeline embed a.safetensors b/ --out vectors.parquet",
        "ws-pipeline embed a.safetensors --backbone model/ --out vectors.parquet",
        panel=PANEL,
    )
    add_command(app, generate, panel=PANEL)
    group = typer.Typer(rich_markup_mode="rich")
    add_command(group, pack, "ws-pipeline tokens pack model.safetensors --out shard/")
    add_command(group, unpack, "ws-pipeline tokens unpack shard/ --out again.safetensors")
    app.add_typer(
        group,
        name="tokens",
        help="Checkpoints to token shards and back, exactly.",
        rich_help_panel=PANEL,
    )


def inspect(
    path: Annotated[str, typer.Argument(help="A .safetensors file, a folder, or a repo id.")],
    *,
    as_json: JsonOption = False,
    headers: Annotated[
        bool, typer.Option("--headers", help="Do not read the weights, which finds NaN and such.")
    ] = False,
    endpoint: EndpointOption = "",
    home: HomeOption = None,
) -> None:
    """Show what is in a checkpoint: parameters, roles, dtypes, tensors, oddities.

    Of a repo behind --endpoint only the headers are fetched, whatever its size.
    """
    with locate_model(path, find_home(home), endpoint) as located:
        from ws_pipeline.weights.inspection import inspect_path, render_inspection

        found = inspect_path(located, read_values=not (headers or endpoint))
    if as_json:
        print_json(found)
    else:
        wide().print(render_inspection(found))


@contextlib.contextmanager
def locate_model(path: str, home: Path, endpoint: str) -> Iterator[Path]:
    """Yield where a model lies: a path, a repo of the embedded hub, or a hub's headers.

    Raises:
        MissingInputError: It is none of them.
    """
    if endpoint:
        from ws_pipeline.cli.remote import fetch_headers

        with fetch_headers(endpoint, path) as folder:
            yield folder
        return
    found = Path(path) if Path(path).exists() else find_repo(home, path)
    if found is None:
        raise MissingInputError(
            f"There is no file, folder or repo {path!r}; check the path, or add "
            "--endpoint https://huggingface.co for a repo that is not in HOME/hub."
        )
    yield found


def pack(
    path: Annotated[str, typer.Argument(help="A .safetensors file or a folder.")],
    to: Annotated[Path, typer.Option("--out", help="Folder for the shard and its manifest.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Turn a checkpoint into a token shard. A shard serves every recipe's layout."""
    check_recipes([recipe])
    (source,) = check_inputs([path], "A checkpoint")
    from ws_pipeline.tokens.pack_folder import pack_path

    pack_path(source, to)
    out().print(f"Packed {path} into {to}", markup=False)


def unpack(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder that pack wrote.")],
    to: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
) -> None:
    """Turn a token shard back into the checkpoint, tensor by tensor and bit by bit."""
    if not Path(folder).is_dir():
        raise MissingInputError(
            f"There is no folder {folder!r}; name one that ws-pipeline tokens pack wrote."
        )
    from ws_pipeline.tokens.pack_folder import unpack_path

    unpack_path(Path(folder), to)
    out().print(f"Unpacked {folder} into {to}", markup=False)


def generate(
    like: Annotated[list[str], typer.Option("--like", help="Checkpoints to be like.")],
    to: Annotated[Path, typer.Option("--out", help="Folder for new checkpoints.")],
) -> None:
    """Make new checkpoints that load like the given ones. Not in this version."""
    del like, to
    raise RefusedError(
        "This version cannot generate checkpoints yet; ws-pipeline embed and tokens pack work on "
        "the same files.",
        reason=Reason.NOT_AVAILABLE,
    )
