"""What is left out: counted by stage and reason, drawn, and warned of when it jumps."""

import base64
import dataclasses
import io
import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from PIL import Image

from ws_pipeline.defs import left_out_checks, operations
from ws_pipeline.defs.assets.corpus import SPLITS
from ws_pipeline.defs.assets.hub import SELECTION
from ws_pipeline.defs.instance import open_instance
from ws_pipeline.defs.left_out import (
    NOTHING,
    count_dropped,
    count_reasons,
    left_out_figure,
    left_out_table,
)
from ws_pipeline.defs.left_out_checks import judge_jump
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.recipes import catalog
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens import corpus
from ws_pipeline.tokens.corpus_rules import CorpusPolicy
from ws_pipeline_tests.defs.small_hub import write_repo

DROPPED = pl.DataFrame(
    {"stage": ["corpus", "headers"], "reason": ["near_duplicate", "gated"], "num_repos": [3, 12]}
)


@pytest.mark.parametrize(
    ("now", "before", "steady", "words"),
    [
        ((90, 10), None, True, "10% left out; nothing to compare with yet"),
        ((0, 0), None, True, "0% left out; nothing to compare with yet"),
        ((90, 10), (80, 20), True, "10% left out, 20% before"),
        ((90, 10), (70, 30), False, "10% left out, 30% before"),
        ((50, 50), (90, 10), False, "50% left out, 10% before"),
        ((1, 1), (90, 10), True, "50% left out, 10% before; too few repos to call it a jump"),
    ],
)
def test_a_share_that_moves_by_more_than_a_tenth_jumps(
    now: tuple[int, int], before: tuple[int, int] | None, steady: bool, words: str
) -> None:
    assert judge_jump(now, before) == (steady, words)


def test_reasons_are_counted_of_the_refused_alone() -> None:
    verdicts = pl.DataFrame({"accepted": [True, False, False], "reason": ["", "gated", "gated"]})
    assert count_reasons(verdicts, "headers").to_dicts() == [
        {"stage": "headers", "reason": "gated", "num_repos": 2}
    ]


def test_the_table_has_the_most_frequent_reason_first_with_the_longest_bar() -> None:
    lines = left_out_table(DROPPED).splitlines()
    assert lines[0] == "| stage | reason | repos | share |  |"
    assert lines[2] == f"| headers | gated | 12 | 80% | {'█' * 24} |"
    assert lines[3] == f"| corpus | near_duplicate | 3 | 20% | {'█' * 6} |"


def test_the_picture_is_a_png_with_a_line_for_each_reason() -> None:
    text = left_out_figure(DROPPED)
    data = text.removeprefix("![left out](data:image/png;base64,").removesuffix(")")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "PNG"
    assert image.width == 700
    assert len(set(image.convert("RGB").get_flattened_data())) > 10  # not a blank page


def test_nothing_left_out_needs_no_picture() -> None:
    assert left_out_table(DROPPED.clear()) == left_out_figure(DROPPED.clear()) == NOTHING


def latest_check(home: Path, key: dg.AssetKey) -> dg.AssetCheckEvaluation:
    with open_instance(home) as instance:
        (record,) = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(asset_key=key, name="left_out_share_is_steady"), limit=1
        )
    assert record.event is not None
    assert record.event.dagster_event is not None
    return record.event.dagster_event.asset_check_evaluation_data


def test_a_copy_is_left_out_counted_and_takes_no_place_in_a_split(refreshed: Path) -> None:
    hub = refreshed / "hub/lab"
    (hub / "cnn-9").mkdir()
    for name in ("model.safetensors", "README.md"):
        (hub / "cnn-9" / name).write_bytes((hub / "mlp-0" / name).read_bytes())
    (hub / "cnn-9" / "config.json").write_text('{"model_type": "cnn"}')
    result = operations.refresh(refreshed)
    assert not result.failed
    store = Store.open(refreshed / "store")
    ledger = Ledger(store=store)
    assert count_dropped(ledger).to_dicts() == [
        {"stage": "corpus", "reason": "duplicate_files", "num_repos": 1}
    ]
    row = ledger.read("cnn").filter(pl.col("repo_id") == "lab/cnn-9").to_dicts()[0]
    assert row["detail"] == "Its weight files are byte for byte those of lab/mlp-0."
    assert store.tables.scan(SPLITS.to_user_string()).collect().height == 6
    edges = store.tables.scan("corpus/lineage").filter("proven").collect()
    assert edges["evidence"].to_list() == ["files"]
    evaluation = latest_check(refreshed, SPLITS)
    assert evaluation.passed
    assert evaluation.metadata["num_duplicate_files"].value == 1
    assert evaluation.metadata["share_left_out"].value == pytest.approx(1 / 7)
    assert "data:image/png" in str(evaluation.metadata["left_out_figure"].value)
    assert "duplicate_files" in str(evaluation.metadata["left_out"].value)


def test_a_copy_that_slips_into_another_split_stops_everything_behind_the_corpus(
    refreshed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "COPY_RULES", ())
    monkeypatch.setattr(corpus, "shared_layer_edges", lambda _: ())
    weights = (refreshed / "hub/lab/mlp-0/model.safetensors").read_bytes()
    for seed in range(10, 22):
        write_repo(refreshed / "hub", "cnn", seed)
        # Other metadata, so that the files are no edge of the lineage graph.
        header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
        header["__metadata__"] = {"seed": str(seed)}
        text = json.dumps(header).encode()
        data = weights[8 + int.from_bytes(weights[:8], "little") :]
        path = refreshed / f"hub/lab/cnn-{seed}/model.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    result = operations.refresh(refreshed)
    (failed,) = result.failed
    assert failed.asset == "corpus/splits"
    assert "splits_share_nothing failed" in failed.detail
    for kind in ("shard_sha256", "tensors", "layer", "near"):
        assert f"'num_leaks_{kind}': 0" not in failed.detail
    assert "'num_leaks_file': 0" in failed.detail
    assert "'num_leaks_lineage_root': 0" in failed.detail


def test_a_changed_corpus_policy_reruns_the_corpus_alone(
    refreshed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = dataclasses.replace(catalog.recipe("tiny"), corpus=CorpusPolicy(near_distance=0.5))
    monkeypatch.setattr(catalog, "RECIPES", {**catalog.RECIPES, "tiny": lambda: loose})
    result = operations.refresh(refreshed)
    done = {outcome.asset for outcome in result.outcomes if outcome.state == "done"}
    assert done == {"hub/repos", "corpus/splits"}


def test_a_jump_of_what_selection_refuses_is_a_warning_and_stops_nothing(
    refreshed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert latest_check(refreshed, SELECTION).passed
    monkeypatch.setattr(left_out_checks, "MIN_JUDGED", 3)
    for seed in (0, 1):
        path = refreshed / f"hub/lab/mlp-{seed}/config.json"
        path.write_text('{"model_type": "mlp", "auto_map": {}}')
    result = operations.refresh(refreshed, families=["mlp"])
    assert not result.failed
    evaluation = latest_check(refreshed, SELECTION)
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["share"].value == "67% left out, 0% before"
    assert evaluation.metadata["num_custom_code"].value == 2
    assert operations.refresh(refreshed, families=["mlp"]).num_processed == 0
