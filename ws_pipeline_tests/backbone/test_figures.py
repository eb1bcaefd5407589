import numpy as np
import polars as pl

from ws_pipeline.backbone.figures import (
    draw_errors_by_role,
    draw_latent_map,
    draw_losses,
    project_to_plane,
)
from ws_pipeline.backbone.history import MetricPoint


def test_the_loss_curve_has_a_line_for_each_loss_that_there_is():
    points = [
        MetricPoint(
            step=step, values={"train/loss_reconstruction": 1 / step, "train/loss_scale": 0.0}
        )
        for step in range(1, 30)
    ]
    axes = draw_losses(points).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "reconstruction, training"
    ]


def test_errors_by_role_leave_out_what_is_not_finite():
    errors = pl.DataFrame(
        {"role": ["linear", "linear", "conv"], "relative_error": [0.5, float("nan"), 0.25]}
    )
    axes = draw_errors_by_role(errors).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["conv (1)", "linear (1)"]


def test_figures_of_nothing_are_empty_not_errors():
    draw_losses([])
    draw_errors_by_role(
        pl.DataFrame(
            {"role": [], "relative_error": []},
            schema={"role": pl.String, "relative_error": pl.Float64},
        )
    )
    draw_latent_map(np.zeros((1, 4)), ["a"])


def test_the_map_shows_every_model_and_names_families():
    random = np.random.default_rng(0)
    families = [f"family-{i % 3}" for i in range(30)]
    axes = draw_latent_map(random.standard_normal((30, 6)), families).axes[0]
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 30
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["family-0", "family-1", "family-2"]


def test_the_plane_keeps_the_largest_variance_and_ignores_constants():
    random = np.random.default_rng(0)
    line = random.standard_normal(200)
    features = np.stack([line, -line, np.full(200, 3.0)], axis=1)
    plane, shares = project_to_plane(features)
    assert shares[0] > 0.999
    assert abs(np.corrcoef(plane[:, 0], line)[0, 1]) > 0.999
