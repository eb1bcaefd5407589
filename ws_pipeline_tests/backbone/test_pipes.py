import logging
from typing import Any

from ws_pipeline.backbone.pipes import DagsterReport, open_report, progress_line


class FakeContext:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.custom: list[dict[str, Any]] = []
        self.materializations: list[tuple[dict[str, Any], str]] = []
        self.log = self

    def info(self, text: str) -> None:
        self.lines.append(text)

    def report_custom_message(self, payload: dict[str, Any]) -> None:
        self.custom.append(payload)

    def report_asset_materialization(self, *, metadata: dict[str, Any], data_version: str) -> None:
        self.materializations.append((metadata, data_version))


def test_progress_comes_about_twenty_times_and_at_the_end():
    context = FakeContext()
    report = DagsterReport(context, num_steps=1000)
    for step in range(5, 1001, 5):
        report.metrics(step, {"train/loss": 0.5})
    assert 20 <= len(context.lines) <= 22
    assert context.lines[-1] == "step 1000/1000: loss 0.5000"


def test_a_progress_line_shows_what_is_there():
    values = {"train/loss": 0.12345, "val/loss_reconstruction": 0.2, "train/tokens_per_second": 1e4}
    line = progress_line(10, 20, values)
    assert line == "step 10/20: loss 0.1235, validation 0.2000, tokens/s 10,000"


def test_a_materialisation_has_links_and_leaves_out_what_is_empty():
    context = FakeContext()
    report = DagsterReport(context, num_steps=1)
    report.materialized({"mlflow_url": "http://x", "note": "", "loss": 0.5}, data_version="abc")
    metadata, version = context.materializations[0]
    assert metadata["mlflow_url"] == {"raw_value": "http://x", "type": "url"}
    assert metadata["loss"] == {"raw_value": 0.5, "type": "__infer__"}
    assert "note" not in metadata
    assert version == "abc"


def test_a_failure_says_its_reason():
    context = FakeContext()
    DagsterReport(context, num_steps=1).failed("no_space", "full", permanent=False)
    expected = {"event": "error", "reason": "no_space", "message": "full", "permanent": False}
    assert context.custom == [expected]


def test_outside_of_dagster_messages_go_to_the_log(caplog):
    with caplog.at_level(logging.INFO), open_report(num_steps=10, main=True) as report:
        report.message("hello")
        report.metrics(10, {"train/loss": 1.0})
        report.materialized({"a": 1}, data_version="x")
        report.failed("internal", "x", permanent=True)
    assert "hello" in caplog.text
    assert "step 10/10" in caplog.text
