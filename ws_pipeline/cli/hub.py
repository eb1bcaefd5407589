"""The commands about hubs: serve a folder as one, crawl one, read the ledger."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ws_pipeline.cli.arguments import (
    POPULATIONS,
    EndpointOption,
    FamilyOption,
    HomeOption,
    JsonOption,
    add_command,
    find_home,
)
from ws_pipeline.cli.completion import complete_reasons
from ws_pipeline.cli.console import (
    ConsoleReporter,
    count_values,
    err,
    out,
    print_json,
    print_table,
)
from ws_pipeline.cli.home import find_store, prepare_home
from ws_pipeline.errors import ConfigError, MissingInputError, Reason

if TYPE_CHECKING:
    import polars as pl

    from ws_pipeline.defs.results import ScanResult

DEFAULT_PORT = 8900
LEDGER_COLUMNS = ("family", "repo_id", "revision", "status", "reason", "detail")
SHOWN_CHANGES = 1000
"""Lines of a scan; the ledger has them all."""
SHOWN_REVISION = 10
"""Digits of a revision in a table; --json has all 40."""


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(rich_markup_mode="rich")
    add_command(
        group,
        serve,
        "ws-pipeline hub serve models/ --port 8900",
        "HF_ENDPOINT=http://127.0.0.1:8900 hf models ls",
        "ws-pipeline hub serve --simulate 1000000 --faults 0.2",
    )
    add_command(
        group,
        scan,
        "ws-pipeline hub scan                       the embedded hub, HOME/hub",
        "ws-pipeline hub scan --endpoint https://huggingface.co --family vit --dry-run",
    )
    add_command(
        group,
        ledger,
        "ws-pipeline hub ledger",
        "ws-pipeline hub ledger --reason gated --json",
    )
    app.add_typer(
        group,
        name="hub",
        help="Serve, crawl, and read the ledger.",
        rich_help_panel=POPULATIONS,
    )


def serve(
    folder: Annotated[
        Path | None, typer.Argument(help="Holds <owner>/<name>/ repos.", show_default=False)
    ] = None,
    *,
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    simulate: Annotated[
        int, typer.Option("--simulate", help="Instead of FOLDER: as many made-up repos.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the made-up repos and faults.")] = 0,
    faults: Annotated[
        float, typer.Option("--faults", help="Share of requests that fail, 0 to 1.")
    ] = 0.0,
) -> None:
    """Serve a folder of repos as a hub that huggingface_hub understands, until Ctrl-C.

    A repo is a folder FOLDER/<owner>/<name>/ with config.json, *.safetensors, README.md, anything.
    Changes are picked up. A .hub.json beside the files may say {"gated": "manual"}, {"private":
    true} or {"disabled": true}. There are no passwords: any token opens what is private.

    With --simulate there is no folder: any number of repos, hostile ones among them, are computed
    with their files when they are asked for.
    """
    if (folder is None) == (simulate <= 0):
        raise ConfigError("Serve either a FOLDER or --simulate N repos.", reason=Reason.MISUSE)
    from ws_pipeline.hub.server import make_app, serve_app
    from ws_pipeline.hub.server.index import HubFolder
    from ws_pipeline.hub.server.simulation import SimulatedHub
    from ws_pipeline.hub.server.simulation_routes import add_faults, make_simulation_app

    if folder is None:
        what = f"{simulate} simulated repos"
        app = make_simulation_app(SimulatedHub(simulate, seed=seed))
    else:
        hub = HubFolder(folder)
        for name in hub.unservable():
            err().print(f"left out: {name} is no name that a hub client can ask for", markup=False)
        what = f"{len(hub.repos())} repos of {folder}"
        app = make_app(folder)
    if faults:
        app = add_faults(app, share=faults, seed=seed)

    def announce(endpoint: str) -> None:
        console = out()
        console.print(f"Serving {what} at {endpoint}", markup=False)
        console.print("Ctrl-C stops.")

    serve_app(app, host=host, port=port, announce=announce)


def scan(
    endpoint: EndpointOption = "",
    family: FamilyOption = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask and compare, write nothing.")] = (
        False
    ),
    home: HomeOption = None,
) -> None:
    """Crawl a hub once into the ledger; only what is new or changed is read.

    The whole hub is scanned, a large one in full once a week and by its recent changes otherwise; a
    scan that was stopped goes on where it was. With --family, only those are listed. --dry-run also
    says what a refresh would fetch, and how big that is.
    """
    folder = find_home(home) if dry_run else prepare_home(find_home(home))
    from ws_pipeline.defs import operations

    with ConsoleReporter() as reporter:
        result = operations.scan(
            folder, endpoint=endpoint, families=family, dry_run=dry_run, reporter=reporter
        )
    print_changes(result)
    gone = f", {result.num_gone} gone" if result.num_gone else ""
    words = "; nothing written" if result.dry_run else ""
    out().print(
        f"{result.num_listed} listed in {len(result.families)} families, {result.num_new} new, "
        f"{result.num_changed} changed{gone}{words}"
    )
    if result.forecast is not None:
        out().print(describe_forecast(result.forecast))


def print_changes(result: "ScanResult") -> None:
    """Print a line for each repo that changed, up to SHOWN_CHANGES; of a dry run with its size."""
    changed = result.repos.filter(result.repos["change"] != "")
    sizes: dict[str, str] = {}
    if result.forecast is not None:
        names, counts = result.forecast["repo_id"], result.forecast["num_bytes"]
        sizes = {name: show_bytes(size) for name, size in zip(names, counts, strict=True)}
    print_table(
        ["change", "family", "repo", "revision", "status", "reason"]
        + (["to fetch"] if result.dry_run else []),
        [
            (
                *(row["change"], row["family"], row["repo_id"]),
                *((row["revision"] or "")[:SHOWN_REVISION], row["status"], row["reason"]),
                *([sizes.get(row["repo_id"], "")] if result.dry_run else []),
            )
            for row in changed.head(SHOWN_CHANGES).to_dicts()
        ],
    )
    if changed.height > SHOWN_CHANGES:
        out().print(f"... and {changed.height - SHOWN_CHANGES} more")


def describe_forecast(forecast: "pl.DataFrame") -> str:
    """Return what a refresh would fetch (`hub.forecast.FORECAST_SCHEMA`), as one sentence."""
    from ws_pipeline.hub.forecast import estimate_bytes

    wanted = forecast.filter(forecast["reason"] == "")
    if wanted.is_empty():
        sentence = "A refresh would fetch nothing"
    else:
        num_unknown = wanted["num_bytes"].null_count()
        about = "about " if num_unknown else ""
        estimated = f" ({num_unknown} of them not asked for, by the mean)" if num_unknown else ""
        size = show_bytes(estimate_bytes(forecast))
        repos = "1 repo" if wanted.height == 1 else f"{wanted.height} repos"
        sentence = f"A refresh would fetch {repos}, {about}{size} at most{estimated}"
    left_out = count_values(forecast.to_dicts(), "reason")
    words = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    return f"{sentence}; not counted: {words}" if words else sentence


def show_bytes(num_bytes: int | None) -> str:
    """Return a size for people; "?" for an unknown one."""
    if num_bytes is None:
        return "?"
    size, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def ledger(
    family: FamilyOption = [],  # noqa: B006 - typer copies it
    reason: Annotated[
        str,
        typer.Option(
            "--reason", help="Only rows with this reason.", autocompletion=complete_reasons
        ),
    ] = "",
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show how far every repo came, and why the others did not."""
    if reason and reason not in set(Reason):
        raise ConfigError(
            f"There is no reason {reason!r}; the reasons are {', '.join(Reason)}.",
            reason=Reason.UNKNOWN_NAME,
        )
    rows = read_ledger(find_store(find_home(home)), family)
    shown = [row for row in rows if not reason or row["reason"] == reason]
    if as_json:
        print_json(shown)
        return
    print_table(
        ["family", "repo", "revision", "status", "reason", "detail"],
        [
            [row[n][:SHOWN_REVISION] if n == "revision" else row[n] for n in LEDGER_COLUMNS]
            for row in shown
        ],
    )
    console = out()
    for title, key in (("status", "status"), ("reason", "reason")):
        counts = count_values(shown, key)
        if counts:
            console.print(f"{title}  " + ", ".join(f"{n} {name}" for name, n in counts.items()))


def read_ledger(store_root: str, families: list[str]) -> list[dict[str, Any]]:
    """Return the ledger's rows, the columns that people ask for first.

    Raises:
        MissingInputError: A family that was never crawled.
    """
    from ws_pipeline.hub.ledger import Ledger
    from ws_pipeline.storage.store import Store

    book = Ledger(store=Store.open(store_root))
    known = book.families()
    for name in families:
        if name not in known:
            raise MissingInputError(
                f"There is no family {name!r} in the ledger; it has {', '.join(known) or 'none'}. "
                "Crawl it with ws-pipeline hub scan."
            )
    rows = [row for name in families or known for row in book.read(name).to_dicts()]
    first = (*LEDGER_COLUMNS, "hub_id", "attempt", "accepted")
    return [{name: "" if row[name] is None else row[name] for name in first} for row in rows]
