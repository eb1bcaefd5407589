import json
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import polars as pl
import pytest
from rich.console import Console

from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.reconstruction import summarize_reconstruction
from ws_pipeline.evaluation.report import (
    LOSS_SCHEMA,
    ReportInput,
    render_report,
    script_json,
    write_report,
)
from ws_pipeline.evaluation.results import RESULT_SCHEMA, concat_results
from ws_pipeline.evaluation.retrieval import evaluate_retrieval
from ws_pipeline.evaluation.summary import summarize_findings, summary_sentences, verdict_of
from ws_pipeline.evaluation.terminal import render_results_table
from ws_pipeline_tests.evaluation.conftest import FAST
from ws_pipeline_tests.evaluation.population import layer_errors

HOSTILE = "evil/</script><script>alert(1)</script>"
HOSTILE_FAMILY = "<img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Collects tags, attributes and the text of JSON scripts as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.json: list[str] = []
        self.in_json = False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.in_json = tag == "script" and ("type", "application/json") in attrs
        self.links += [v for k, v in attrs if k in {"src", "href", "action", "data"} and v]

    def handle_endtag(self, tag):
        self.in_json = False

    def handle_data(self, data):
        if self.in_json:
            self.json.append(data)


@pytest.fixture(scope="module")
def results(population, properties):
    errors = {
        "backbone": layer_errors(population.corpus, 0.4),
        "untrained": layer_errors(population.corpus, 1.1),
    }
    return concat_results(
        [
            properties.results,
            evaluate_retrieval(
                population.corpus,
                population.embeddings,
                population.layers,
                population.edges,
                recipe="tiny",
                config=FAST,
            ),
            summarize_reconstruction(population.corpus, errors, recipe="tiny", config=FAST),
        ]
    )


@pytest.fixture(scope="module")
def page(population, properties, results):
    first = pl.col("hub_id") == population.corpus["hub_id"][0]
    corpus = population.corpus.with_columns(
        repo_id=pl.when(first).then(pl.lit(HOSTILE)).otherwise("repo_id"),
        family=pl.when(pl.col("family") == "cnn").then(pl.lit(HOSTILE_FAMILY)).otherwise("family"),
    )
    return render_report(
        ReportInput(
            provenance={"recipe": "tiny", "versions": {"polars": "2.1.0"}, "note": HOSTILE},
            corpus=corpus,
            results=concat_results([results, results.with_columns(recipe=pl.lit("other"))]),
            dropped=pl.DataFrame(
                {"stage": ["hub/headers"], "reason": ["pickle_only"], "num_repos": [3]}
            ),
            predictions=properties.predictions,
            embeddings=population.embeddings["backbone"],
            losses=pl.DataFrame(
                {"step": [0, 1], "name": ["loss", "loss"], "value": [1.0, float("nan")]},
                schema=LOSS_SCHEMA,
            ),
            limitations=("Small models.",),
        )
    )


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_page_carries_plotly_once_and_fetches_nothing(page, read):
    assert page.count("* plotly.js v") == 1
    assert read.links == []
    assert not {"link", "iframe", "img", "object", "embed"} & set(read.tags)
    assert "default-src 'none'" in page


def test_hostile_names_stay_text(page, read):
    assert "<script>alert" not in page
    assert HOSTILE_FAMILY not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_every_figure_is_json_that_plotly_accepts(read):
    assert len(read.json) >= 10
    for text in read.json:
        figure = json.loads(text)
        go.Figure(data=figure["data"], layout=figure["layout"])  # raises on an unknown property
        assert "<" not in text


def test_what_was_dropped_is_a_figure_too(read):
    bars = [f for text in read.json if (f := json.loads(text))["data"][0]["type"] == "bar"]
    assert [trace["name"] for trace in bars[0]["data"]] == ["hub/headers"]
    assert bars[0]["layout"]["yaxis"]["ticktext"] == ["pickle_only"]


def test_labels_inside_figures_are_escaped_for_plotly(read):
    labels = [
        t for text in read.json for t in re.findall(r"evil/[^\"]*", json.dumps(json.loads(text)))
    ]
    assert labels
    assert not any("<" in label for label in labels)


def test_the_page_says_what_was_found_done_and_dropped(page):
    for text in ("pickle_only", "versions.polars", "Small models.", "No lineage is in two splits"):
        assert text in page
    for heading in (
        "Properties",
        "Relatives",
        "Reconstruction",
        "Latent map",
        "Recipes side by side",
    ):
        assert f"<h2>{heading}</h2>" in page


def test_a_report_of_results_alone_is_complete(tmp_path, population, results):
    path = tmp_path / "deep" / "report.html"
    write_report(path, ReportInput(provenance={}, corpus=population.corpus, results=results))
    text = path.read_text()
    assert "Nothing was dropped." in text
    assert "Latent map" not in text
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_the_same_input_gives_the_same_bytes(population, results):
    report = ReportInput(provenance={}, corpus=population.corpus, results=results)
    assert render_report(report) == render_report(report)


def test_a_report_without_results_is_refused_with_the_remedy(population):
    empty = ReportInput(
        provenance={}, corpus=population.corpus, results=pl.DataFrame(schema=RESULT_SCHEMA)
    )
    with pytest.raises(MissingInputError, match="ws-pipeline evaluate"):
        render_report(empty)


def test_json_cannot_close_its_script_and_holds_no_nan():
    text = script_json({"a": "</script>\u2028&", "b": float("nan"), "c": [float("inf")]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script>\u2028&", "b": None, "c": [None]}


def test_sentences_say_where_it_wins_loses_and_is_open(results):
    findings = summarize_findings(results, recipe="tiny")
    verdicts = {(f.task, f.subject, f.control): f.verdict for f in findings}
    assert verdicts["predicting test accuracy", "backbone", "statistics"] == "yes"
    assert verdicts["predicting generalisation gap", "backbone", "hyper_parameters"] == "no"
    assert verdicts["reconstructing held-out weights", "backbone", "mean"] == "yes"
    sentences = summary_sentences(findings)
    lost = [s for s in sentences if s.startswith("The backbone against hyper-parameters alone")]
    assert "worse at predicting generalisation gap (−" in lost[0]


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "verdict"),
    [
        (0.1, 0.2, False, "yes"),
        (-0.2, -0.1, False, "no"),
        (-0.1, 0.1, False, "undecided"),
        (-0.2, -0.1, True, "yes"),
        (None, None, False, "undecided"),
    ],
)
def test_the_interval_decides_the_verdict(low, high, lower_is_better, verdict):
    assert verdict_of(0.1, low, high, lower_is_better=lower_is_better) == verdict


def test_no_value_is_no_verdict():
    assert verdict_of(None, None, None, lower_is_better=False) == "not measured"


def test_the_terminal_table_fits_eighty_columns(results):
    console = Console(width=80, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as capture:
        console.print(render_results_table(results))
    text = capture.get()
    assert "recipe tiny" in text
    assert "…" not in text
    assert "test accuracy" in text
    header = next(line for line in text.splitlines() if "backbone" in line)
    assert header.split() == ["what", "backbone", "s(W)", "hyper-par.", "untrained", "floor"]


def test_a_lineage_in_two_splits_is_called_a_leak(population, results):
    corpus = population.corpus.with_columns(
        split=pl.when(pl.col("hub_id") == pl.col("hub_id").first())
        .then(pl.lit("test"))
        .otherwise("split")
    )
    page = render_report(ReportInput(provenance={}, corpus=corpus, results=results))
    assert "lineages that are in more than one split: 1" in page


def test_several_training_seeds_do_not_mix_in_one_figure(population, results):
    two = concat_results([results, results.with_columns(seed=pl.lit(1, dtype=pl.Int64))])
    page = render_report(ReportInput(provenance={}, corpus=population.corpus, results=two))
    assert "means over 2 seeds" in page
    assert page.count('<div class="figure"') == render_report(
        ReportInput(provenance={}, corpus=population.corpus, results=results)
    ).count('<div class="figure"')
