import json
import re

import plotly.graph_objects as go
import polars as pl
import pytest

from ws_pipeline.evaluation.atlas import place_models, render_atlas, write_atlas
from ws_pipeline.evaluation.report_input import ReportInput
from ws_pipeline_tests.evaluation.population import create_population

HOSTILE = "evil/</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def report():
    population = create_population(num_lineages=16)
    first = pl.col("hub_id") == population.corpus["hub_id"][0]
    corpus = population.corpus.with_columns(
        repo_id=pl.when(first).then(pl.lit(HOSTILE)).otherwise("repo_id")
    )
    embeddings = population.embeddings["backbone"].select("hub_id", "embedding")
    return ReportInput(
        provenance={},
        corpus=corpus,
        results=pl.DataFrame(),
        embeddings=embeddings.filter(pl.col("hub_id") != population.corpus["hub_id"][1]),
        edges=population.edges,
        recipe="tiny",
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(report):
    text = render_atlas(report)
    assert text is not None
    return text


def figure_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_every_model_with_an_embedding_is_a_dot_in_every_colouring(page):
    figure = figure_of(page)
    go.Figure(data=figure["data"], layout=figure["layout"])  # raises on an unknown property
    for mode in figure["modes"]:
        dots = [name for (index,) in mode["traces"] for name in figure["data"][index]["customdata"]]
        assert len(dots) == len(set(dots)) == 47
    assert "Atlas of 47 models" in page
    assert "1 models of the corpus are not shown" in page


def test_edges_between_shown_models_are_lines(page):
    line = figure_of(page)["data"][0]
    # 32 edges, of which the hidden model (the first lineage's second) has two.
    assert len(line["x"]) == 3 * 30
    assert line["x"][2::3] == [None] * 30


def test_strangers_names_stay_text_and_nothing_is_fetched(page):
    assert "<script>alert" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_the_same_embeddings_give_the_same_page(report, page):
    assert render_atlas(report) == page


def test_relatives_lie_closer_than_strangers(report):
    models = place_models(report.corpus, report.embeddings, seed=0)
    assert models is not None
    roots = report.corpus.select("hub_id", "lineage_root")
    places = models.join(roots, on="hub_id").select("lineage_root", "x", "y")
    spread = places.group_by("lineage_root").agg(pl.col("x", "y").std())
    assert spread["x"].mean() < 0.3 * places["x"].std()


def test_too_few_models_leave_no_page(tmp_path, report):
    path = tmp_path / "atlas.html"
    assert write_atlas(path, report)
    few = ReportInput(
        provenance={}, corpus=report.corpus, results=report.results,
        embeddings=report.embeddings.head(5),
    )  # fmt: skip
    assert not write_atlas(path, few)
    assert not path.exists()
