"""What a shell may complete: names that are known without asking anybody. Reads folder names.

A shell waits for the answer at every press of a key, so nothing heavy is imported, and a home whose
store is not a folder has no families here.
"""

import os
from pathlib import Path
from typing import Any

LEDGER_FOLDER = Path("tables", "ledger", "repos")
"""Of a store: one table for each family that was crawled."""


def complete_recipes() -> list[str]:
    """Return the recipes there are."""
    from ws_pipeline.backbone.presets import PRESETS

    return list(PRESETS)


def complete_zoos() -> list[str]:
    """Return the zoos there are."""
    from ws_pipeline.zoo.catalog import ZOO_NAMES

    return list(ZOO_NAMES)


def complete_reasons() -> list[str]:
    """Return the reason codes there are."""
    from ws_pipeline.errors import Reason

    return list(Reason)


def complete_families(ctx: Any) -> list[str]:  # typer.Context is not the class that comes
    """Return the families of the home that the line so far names."""
    home = ctx.params.get("home") or ctx.find_root().params.get("home")
    stated = home or os.environ.get("WS_HOME") or ".ws"
    store = os.environ.get("WS_STORE") or Path(stated).expanduser() / "store"
    return sorted(path.stem for path in Path(store, LEDGER_FOLDER).glob("*.parquet"))
