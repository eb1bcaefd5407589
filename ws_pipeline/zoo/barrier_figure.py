"""The figure of interpolations: loss and accuracy between models, way beside way. No I/O.

matplotlib's object interface, imported when the figure is drawn.
"""

from collections.abc import Mapping
from typing import Any

from ws_pipeline.zoo.interpolation import Interpolation

SIZE_INCHES = (8.0, 3.6)


def draw_interpolations(ways: Mapping[str, Interpolation]) -> Any:
    """Draw loss (left) and accuracy (right) over the share of the second model, a line per way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for name, way in ways.items():
        losses.plot(way.shares, way.losses, marker=".", label=f"{name}: barrier {way.barrier:.3f}")
        accuracies.plot(way.shares, way.accuracies, marker=".")
    for axes, title in ((losses, "loss"), (accuracies, "accuracy")):
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set_xlabel("share of the second model")
        axes.spines[["top", "right"]].set_visible(False)
    if ways:
        losses.legend(frameon=False)
    return figure
