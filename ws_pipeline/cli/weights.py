"""The commands about single checkpoints: inspect, tokens, embed, generate."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ws_pipeline.cli.arguments import (
    CHECKPOINTS,
    EndpointOption,
    HomeOption,
    JsonOption,
    RecipeOption,
    add_command,
    find_home,
)
from ws_pipeline.cli.console import out, print_json, wide
from ws_pipeline.cli.embedding import embed
from ws_pipeline.cli.generate import generate
from ws_pipeline.cli.home import REPO_ID, check_inputs, find_local
from ws_pipeline.cli.lineage import check_recipes
from ws_pipeline.errors import MissingInputError
from ws_pipeline.settings import DEFAULT_RECIPE


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(
        app,
        inspect,
        "ws-pipeline inspect model.safetensors",
        "ws-pipeline inspect sharded-folder/ --json",
        "ws-pipeline inspect zoo/NAME --json              a repo of HOME/hub",
        "ws-pipeline inspect OWNER/NAME --endpoint https://huggingface.co",
        panel=CHECKPOINTS,
    )
    add_command(
        app,
        embed,
        "ws-pipeline embed zoo/NAME                       its nearest neighbours in the corpus",
        "ws-pipeline embed a.safetensors b/ --out vectors.parquet",
        "ws-pipeline embed a.safetensors --backbone model/ --out vectors.parquet",
        "ws-pipeline embed OWNER/NAME --endpoint https://huggingface.co",
        panel=CHECKPOINTS,
    )
    add_command(
        app,
        generate,
        "ws-pipeline generate --like zoo/NAME --out new/ --num 5",
        "ws-pipeline generate --like a/ b/ c/ --density blend --out new/",
        panel=CHECKPOINTS,
    )
    group = typer.Typer(rich_markup_mode="rich")
    add_command(group, pack, "ws-pipeline tokens pack model.safetensors --out shard/")
    add_command(group, unpack, "ws-pipeline tokens unpack shard/ --out again.safetensors")
    app.add_typer(
        group,
        name="tokens",
        help="Checkpoints to token shards and back, exactly.",
        rich_help_panel=CHECKPOINTS,
    )


def inspect(
    path: Annotated[
        str, typer.Argument(help="A .safetensors file, a folder, or a repo id OWNER/NAME.")
    ],
    *,
    as_json: JsonOption = False,
    headers: Annotated[
        bool,
        typer.Option("--headers", help="Read the headers only: no statistics, no oddities."),
    ] = False,
    endpoint: EndpointOption = "",
    home: HomeOption = None,
) -> None:
    """Show what is in a checkpoint: the layer plan, totals by role, statistics, oddities.

    Of a file or folder the weights are read as well, in constant memory. Of a repo behind
    --endpoint only the headers are fetched, whatever its size.
    """
    with locate_model(path, find_home(home), endpoint) as (located, is_remote):
        from ws_pipeline.weights.inspection import inspect_path

        found = inspect_path(located, read_values=not (headers or is_remote))
    if as_json:
        print_json(found)
        return
    from ws_pipeline.cli.inspection_tables import render_inspection

    console = wide()
    console.print(render_inspection(found, width=console.width))


@contextlib.contextmanager
def locate_model(path: str, home: Path, endpoint: str) -> Iterator[tuple[Path, bool]]:
    """Yield where a model lies, and whether only its headers are there.

    It is a path, else a repo of the embedded hub, else one of the hub at the endpoint; where an
    endpoint is given, that is the only place to look.

    Raises:
        MissingInputError: It is none of them.
    """
    found = None
    if not endpoint:
        found = find_local(home, path)
        endpoint = os.environ.get("WS_HUB_ENDPOINT", "")
    if found is not None:
        yield found, False
        return
    if not endpoint or not REPO_ID.fullmatch(path):
        raise MissingInputError(
            f"There is no file, folder or repo {path!r}; check the path, or add "
            "--endpoint https://huggingface.co to a repo id OWNER/NAME that is not in HOME/hub."
        )
    from ws_pipeline.cli.remote import fetch_headers

    with fetch_headers(endpoint, path, home) as folder:
        yield folder, True


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
