"""Figures of one training: loss curve, reconstruction by role, map of the latents. No I/O.

Drawn with matplotlib's object interface, without pyplot and its global state; matplotlib is
imported when a figure is drawn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ws_pipeline.backbone.history import MetricPoint, series

SIZE_INCHES = (7.0, 4.2)
MAX_COLOURS = 10
"""Of matplotlib's default cycle; families beyond the nine largest are drawn as one, in grey."""


def draw_losses(points: Sequence[MetricPoint]) -> Any:
    """Draw training and validation losses over steps, on a logarithmic axis."""
    figure, axes = _new_figure("Loss", "step", "error in units of the layer")
    for name, label in (
        ("train/loss_reconstruction", "reconstruction, training"),
        ("val/loss_reconstruction", "reconstruction, validation"),
        ("train/loss_scale", "scale, training"),
        ("train/loss_contrastive", "contrastive, training"),
    ):
        steps, values = series(points, name)
        if any(value > 0.0 for value in values):
            axes.plot(steps, values, label=label, marker="." if len(steps) < 20 else "")
    axes.set_yscale("log")
    if axes.lines:
        axes.legend(frameon=False)
    return figure


def draw_errors_by_role(errors: pl.DataFrame) -> Any:
    """Draw the spread of layers' relative errors for each role.

    Args:
        errors: As ``evaluate.reconstruct_models`` returns it.
    """
    figure, axes = _new_figure(
        "Reconstruction of validation models", "relative error of a layer", ""
    )
    finite = errors.filter(pl.col("relative_error").is_finite())
    groups = {str(role): part for (role,), part in finite.sort("role").group_by("role")}
    names = sorted(groups)
    if names:
        values = [groups[name]["relative_error"].to_numpy() for name in names]
        labels = [f"{name} ({len(each)})" for name, each in zip(names, values, strict=True)]
        axes.boxplot(values, tick_labels=labels, showfliers=False, orientation="horizontal")
        axes.invert_yaxis()
    axes.axvline(1.0, color="0.6", linewidth=0.8)
    axes.set_xlim(left=0.0)
    return figure


def draw_latent_map(embeddings: npt.NDArray[np.float64], families: Sequence[str]) -> Any:
    """Draw models' embeddings on their first two principal components, coloured by family.

    Args:
        embeddings: ``(models, features)``.
        families: Of each model.
    """
    plane, shares = project_to_plane(embeddings)
    first, second = (f"component {i + 1} ({share:.0%})" for i, share in enumerate(shares))
    figure, axes = _new_figure("Model embeddings", first, second)
    names, counts = np.unique(np.array(families, dtype=str), return_counts=True)
    largest = set(names[np.argsort(-counts)][: MAX_COLOURS - 1])
    for name in [*sorted(largest), *sorted(set(names) - largest)]:
        rows = np.array([family == name for family in families])
        colour = None if name in largest else "0.7"
        axes.scatter(*plane[rows].T, s=12, label=str(name), color=colour, alpha=0.8, linewidths=0)
    if len(names) <= 2 * MAX_COLOURS:
        axes.legend(frameon=False, fontsize="small", markerscale=1.5)
    return figure


def project_to_plane(
    features: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """Return rows on their first two principal components, and the variance that each explains.

    Columns are standardised first; constant ones count nothing.
    """
    centred = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    scaled = centred / np.where(spread > 0.0, spread, 1.0)
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    plane = np.zeros((len(features), 2))
    kept = min(2, len(values))
    plane[:, :kept] = left[:, :kept] * values[:kept]
    shares = np.zeros(2)
    total = float((values**2).sum())
    if total > 0.0:
        shares[:kept] = values[:kept] ** 2 / total
    return plane, (float(shares[0]), float(shares[1]))


def _new_figure(title: str, x_label: str, y_label: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
