"""When an asset asks to be made again by itself. No I/O.

`eager()` fires at every upstream materialisation, also when its data version is the same, so a
nightly crawl that found nothing would re-run everything. The condition here looks at data versions,
and waits for the blocking checks of what it reads. Training, and what only training changes, never
gets it: a model costs what a model costs, and new data alone is no reason.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from ws_pipeline.defs.assets.corpus import SPLITS
from ws_pipeline.defs.assets.hub import FILES, HEADERS, SELECTION
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.assets.weights import LAYERS

Condition = dg.AutomationCondition

# Replaced only below `any_deps_updated`: an update of the asset itself still resets it.
_DEPS_CHANGED: Condition[Any] = Condition.any_deps_updated().replace(
    "newly_updated", Condition.data_version_changed()
)
_NEWLY_MISSING: Condition[Any] = Condition.newly_missing()
_CHANGED = (_NEWLY_MISSING | _DEPS_CHANGED).since_last_handled()
_QUIET = ~Condition.any_deps_in_progress() & ~Condition.in_progress()

WHEN_INPUTS_CHANGED = (
    _CHANGED & _QUIET & ~Condition.any_deps_missing() & Condition.all_deps_blocking_checks_passed()
).with_label("when inputs changed")
"""For the stages of one family: same version, nothing happens; a new one, that family alone."""

WHEN_ANY_FAMILY_CHANGED = (
    _CHANGED
    & _QUIET
    # A family that was found a minute ago must not stop the corpus of all others.
    & Condition.all_deps_match(
        Condition.missing()
        | Condition.all_checks_match(
            Condition.check_passed() | Condition.will_be_requested(), blocking_only=True
        )
    )
).with_label("when any family changed")
"""For `corpus/splits`: cheap, and made of whatever is there."""

CONDITIONS = {
    HEADERS: WHEN_INPUTS_CHANGED,
    SELECTION: WHEN_INPUTS_CHANGED,
    FILES: WHEN_INPUTS_CHANGED,
    LAYERS: WHEN_INPUTS_CHANGED,
    SHARDS: WHEN_INPUTS_CHANGED,
    SPLITS: WHEN_ANY_FAMILY_CHANGED,
}

follow_the_data = dg.AutomationConditionSensorDefinition(
    "follow_the_data",
    target=dg.AssetSelection.assets(*CONDITIONS),
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="From a changed ledger to token shards and splits, for the families that changed.",
)


def apply(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Give each asset its condition, if it has one."""
    return [
        asset.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=CONDITIONS[spec.key])
        )
        if asset.key in CONDITIONS
        else asset
        for asset in assets
    ]
