"""The whole lineage on a zoo of two families: from nothing, again, and with one new repo.

The one test that trains: a tiny zoo, and a backbone of a few steps.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ws_pipeline.defs import operations
from ws_pipeline.defs.assets.backbone import MODEL
from ws_pipeline.defs.instance import open_instance
from ws_pipeline.defs.operations import DemoResult
from ws_pipeline.recipes import Recipe, catalog

STAGES = ("hub/headers", "hub/selection", "hub/files", "weights/layers", "tokens/shards")


def quick() -> Recipe:
    tiny = catalog.build_recipe("tiny")
    training = dataclasses.replace(
        tiny.training, num_steps=6, batch_size=4, window_size=16, evaluate_every=3, log_every=1
    )
    evaluation = dataclasses.replace(
        tiny.evaluation, num_bootstrap=20, min_test_models=3, min_train_models=3, min_lineages=3
    )
    return dataclasses.replace(tiny, training=training, evaluation=evaluation)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, DemoResult]]:
    home = tmp_path_factory.mktemp("demo") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "RECIPES", {**catalog.RECIPES, "tiny": quick})
        yield home, operations.demo(home, zoo_name="tiny")


def test_from_nothing_to_a_report_in_one_call(first: tuple[Path, DemoResult]) -> None:
    home, result = first
    assert {o.state for o in result.outcomes} == {"done"}
    assert result.results.height > 0
    assert set(result.results["evaluation"].unique()) == {
        "properties",
        "retrieval",
        "reconstruction",
        "lineage",
        "robustness",
    }
    assert result.report.read_text().startswith("<!doctype html>")
    assert result.num_processed > 0
    assert str(home) in result.ui_commands[0]


def test_each_odd_repo_ends_with_its_own_reason(first: tuple[Path, DemoResult]) -> None:
    refused = dict(first[1].refused.select("repo_id", "reason").rows())
    assert refused == {
        "oddities/broken-file": "header_truncated",
        "oddities/gated": "gated",
        "oddities/nan-weights": "non_finite_weights",
        "oddities/pickle-only": "pickle_only",
    }


def test_training_is_linked_with_its_mlflow_run_both_ways(
    first: tuple[Path, DemoResult],
) -> None:
    from mlflow.tracking import MlflowClient

    home, _ = first
    with open_instance(home) as instance:
        (record,) = instance.fetch_materializations(MODEL, limit=1).records
    made = record.asset_materialization
    assert made is not None
    run_id = str(made.metadata["mlflow_run_id"].value)
    assert isinstance(made.metadata["mlflow_url"], dg.UrlMetadataValue)
    assert run_id in str(made.metadata["mlflow_url"].value)
    run = MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}").get_run(run_id)
    assert run.data.tags["dagster_run_id"] == record.run_id
    assert run.data.params["training.num_steps"] == "6"
    assert run.info.status == "FINISHED"


def test_the_model_reloads_from_its_folder_alone(
    first: tuple[Path, DemoResult], tmp_path: Path
) -> None:
    from ws_pipeline.backbone.model import Backbone

    folder = operations.find_model(first[0], "tiny")
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert {"model.safetensors", "config.json"} <= {path.name for path in moved.iterdir()}
    loaded = Backbone.from_pretrained(moved).config
    assert (loaded.width, loaded.token_size) == (quick().backbone.width, 64)


def test_again_then_with_one_new_repo(first: tuple[Path, DemoResult]) -> None:
    home, _ = first
    again = operations.demo(home, zoo_name="tiny")
    assert again.num_processed == 0
    assert {o.asset for o in again.outcomes if o.state == "done"} == set()

    source = next((home / "hub").glob("*/mlp-digits*/model.safetensors")).parent
    new = Path(shutil.copytree(source, home / "hub/newcomer/fresh"))
    weights = bytearray((new / "model.safetensors").read_bytes())
    weights[-4:] = b"\x00\x00\x80\x3f"  # 1.0: a model of its own, not a copy
    (new / "model.safetensors").write_bytes(bytes(weights))
    more = operations.demo(home, zoo_name="tiny")
    done = {(o.asset, o.partition): o.num_processed for o in more.outcomes if o.state == "done"}
    assert {done[stage, "mlp"] for stage in STAGES} == {1}
    assert done["corpus/splits", ""] == 1
    assert done["backbone/embeddings", "tiny"] == 1
    assert not any(partition == "cnn" and asset in STAGES for asset, partition in done)
    assert ("backbone/model", "tiny") not in done
    assert ("zoo/models", "tiny") not in done
