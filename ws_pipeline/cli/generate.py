"""The command that makes new checkpoints like given ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ws_pipeline.cli.arguments import HomeOption, JsonOption, find_home
from ws_pipeline.cli.completion import complete_recipes
from ws_pipeline.cli.console import err, out, print_json, print_table
from ws_pipeline.cli.embedding import find_backbone
from ws_pipeline.cli.home import find_local
from ws_pipeline.errors import MissingInputError, Reason, RefusedError

PREFERRED_RECIPE = "generation"
"""Its latents are as large as its tokens. The default recipe's are half of that, and what it gives
back of a model computes nothing (docs/experiments.md)."""

WORST_ERROR = 0.1
"""Of encoding and decoding, from which on a warning is due: of an accuracy of 0.92, small CNNs have
0.84 left at an error of 0.06, 0.67 at 0.13 and 0.37 at 0.25 (docs/experiments.md)."""


def generate(
    like: Annotated[
        list[str],
        typer.Option("--like", help="Checkpoint to be like; more may follow it.", metavar="PATH"),
    ],
    to: Annotated[Path, typer.Option("--out", help="Folder for the new checkpoints.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[PATH]...", hidden=True)] = None,
    *,
    num: Annotated[int, typer.Option("--num", min=1, max=10_000, help="How many to make.")] = 1,
    density: Annotated[
        str,
        typer.Option(
            "--density", help="model-kde, blend, subspace, gaussian or token-kde; see docs."
        ),
    ] = "model-kde",
    bandwidth: Annotated[
        float, typer.Option("--bandwidth", help="Noise, in units of the anchors' spread.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draws.")] = 0,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Use this recipe's backbone. Default: generation, else $WS_RECIPE, else tiny.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option("--backbone", help="Use the backbone in this folder.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Make new checkpoints that load like the given ones.

    The checkpoints are anchors: they must have one shape, their hidden units are aligned, and what
    is drawn lies around them. Each new model is a folder with a generation.json that says what it
    was made of and which tensors were copied.
    """
    if to.exists() and not to.is_dir():
        raise RefusedError(f"--out must be a folder, {str(to)!r} is a file.", reason=Reason.MISUSE)
    folder = find_home(home)
    paths = find_anchors([*like, *(more or [])], folder)
    chosen = find_generator(folder, recipe, backbone)
    from ws_pipeline.backbone.loading import load_backbone
    from ws_pipeline.generation.config import DensityConfig
    from ws_pipeline.generation.like import generate_like
    from ws_pipeline.storage.objects import file_sha256

    config = DensityConfig(kind=density, bandwidth=bandwidth)
    model = load_backbone(chosen)
    provenance = file_sha256(chosen / "model.safetensors")
    result = generate_like(
        model, paths, to, config=config, num_models=num, seed=seed, provenance=provenance
    )
    rows = [
        {"model": str(m.folder), "nearest_anchor": m.nearest_anchor, "distance": m.distance}
        for m in result.models
    ]
    if result.reconstruction_error > WORST_ERROR:
        err().print(
            f"warning: this backbone gives anchors back with a relative error of "
            f"{result.reconstruction_error:.2f}; the new models will hardly work. "
            f"ws-pipeline train --recipe {PREFERRED_RECIPE} makes one that keeps them.",
            markup=False,
        )
    if as_json:
        error = result.reconstruction_error
        found = {"models": rows, "copied": list(result.copied), "reconstruction_error": error}
        print_json(found)
        return
    print_table(("model", "nearest_anchor", "distance"), [list(row.values()) for row in rows])
    if result.copied:
        out().print(
            f"Copied {len(result.copied)} tensors that cannot be generated, such as "
            f"{result.copied[0]}; running statistics should be estimated anew with data.",
            markup=False,
        )


def find_anchors(names: Sequence[str], home: Path) -> list[Path]:
    """Return where the anchors lie: paths first, then repos of the embedded hub.

    Raises:
        MissingInputError: Names the first that is neither.
    """
    found = []
    for name in names:
        path = find_local(home, name)
        if path is None:
            raise MissingInputError(
                f"There is no file or folder {name!r}, nor a repo of that name in HOME/hub. An "
                "anchor is a .safetensors file, a folder that holds one, or such a repo."
            )
        found.append(path)
    return found


def find_generator(home: Path, recipe: str | None, backbone: Path | None) -> Path:
    """Return the folder of the backbone to generate with.

    Raises:
        RefusedError: Both were named.
        MissingInputError: There is none.
    """
    if recipe is not None or backbone is not None:
        return find_backbone(home, recipe, backbone)
    from ws_pipeline.defs.runs import find_model

    try:
        return find_model(home, PREFERRED_RECIPE)
    except MissingInputError:
        return find_backbone(home, None, None)
