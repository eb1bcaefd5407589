import subprocess
import sys

import dagster as dg
import pytest

from ws_pipeline.defs.build import build_defs
from ws_pipeline.defs.partitions import dimension, families, recipes, zoos

KEYS = {
    "hub/repos": families,
    "hub/headers": families,
    "hub/selection": families,
    "hub/files": families,
    "weights/layers": families,
    "tokens/shards": families,
    "corpus/splits": None,
    "backbone/model": recipes,
    "backbone/embeddings": recipes,
    "zoo/models": zoos,
    "zoo/diversity": zoos,
    "evaluation/properties": recipes,
    "evaluation/retrieval": recipes,
    "evaluation/reconstruction": recipes,
    "evaluation/generation": recipes,
    "evaluation/leaderboard": None,
    "evaluation/composition": None,
}
"""The table of the design."""

HEAVY = ("torch", "mlflow", "transformers", "accelerate", "sklearn", "numba")


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_defs()


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_code_location_loads(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_the_assets_and_their_partitions_are_those_of_the_design(
    definitions: dg.Definitions,
) -> None:
    found = {name: spec.partitions_def for name, spec in specs(definitions).items()}
    assert found == KEYS


def test_every_asset_says_what_it_is_who_owns_it_and_what_it_is_made_with(
    definitions: dg.Definitions,
) -> None:
    for name, spec in specs(definitions).items():
        assert len(spec.description or "") > 60, name
        assert all([spec.kinds, spec.owners, spec.code_version]), name
        assert spec.group_name == name.split("/")[0]


def test_every_asset_has_a_blocking_check(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    blocking = {key.asset_key for key in graph.asset_check_keys if graph.get(key).blocking}
    assert {key.to_user_string() for key in blocking} == set(KEYS)


def test_checks_are_partitioned_like_their_assets(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.asset_check_keys:
        assert graph.get(key).partitions_def == graph.get(key.asset_key).partitions_def, key


def test_the_dimension_table_agrees_with_the_definitions(definitions: dg.Definitions) -> None:
    partitions = {"family": families, "recipe": recipes, "zoo": zoos, "": None}
    for name, spec in specs(definitions).items():
        assert partitions[dimension(spec.key)] == spec.partitions_def, name


def test_no_schedule_or_sensor_runs_unless_someone_turns_it_on(
    definitions: dg.Definitions,
) -> None:
    repository = definitions.get_repository_def()
    assert repository.schedule_defs
    assert repository.sensor_defs
    for schedule in repository.schedule_defs:
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    for sensor in repository.sensor_defs:
        assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_the_code_location_imports_no_heavy_library() -> None:
    code = (
        "import sys; from ws_pipeline.definitions import defs; defs().resolve_asset_graph();"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "Warning" not in done.stderr


def test_what_the_command_line_imports_first_has_no_dagster_in_it() -> None:
    code = (
        "import sys; import ws_pipeline.defs.operations;"
        f"print([m for m in {('dagster', *HEAVY)!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
