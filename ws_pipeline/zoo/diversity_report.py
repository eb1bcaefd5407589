"""The diversity report: figures and words from the diversity table and the index. No I/O.

Figures are drawn from the table's quantiles, so a report can be made again from its Parquet files
alone. matplotlib's object interface, imported when a figure is drawn.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

MAX_FACTORS = 12
"""Most factors of one chart or table, those that explain most."""
BOX_KEYS = {"min": "whislo", "q25": "q1", "median": "med", "q75": "q3", "max": "whishi"}
"""Our statistics to matplotlib's names of a box's parts."""

PAIR_METRICS = (
    "l2_distance",
    "aligned_l2_distance",
    "cosine_distance",
    "aligned_cosine_distance",
    "alignment_gain",
    "agreement",
    "kappa_of_errors",
    "cka",
)
PROBE_METRICS = (
    "calibration_error",
    "accuracy_drop_noise_0.1",
    "accuracy_drop_noise_0.3",
    "accuracy_drop_shift_1",
    "accuracy_drop_shift_2",
)
EXPLAINED_METRICS = ("accuracy", "generalization_gap", "errors", "weight_norm", "weights")

_COUNTS = """{num_models:,} models, {num_repos:,} repos with their checkpoints. Accuracies are of
the test set; the gap is training accuracy less test accuracy."""
_PAIRS = """## Pairs of models

Medians. Relatives descend from one model, checkpoints of one run among them. Aligned distances are
of a sample of the pairs, evenly over shapes; the gain is the share of a pair's L2 distance that
permuting takes away. Kappa is Cohen's, of which rows two models get wrong: 0 is chance."""
_PROBES = """## Calibration and robustness

Medians over a sample of the models. A drop is accuracy on the rows as they are, less that with
noise of the given standard deviation, or moved by so many pixels."""
_FACTORS = """## What the generating factors explain

Share of the variance between the levels of a factor, less what chance gives on average (epsilon
squared); of `weights` and `errors` the share of the squared distances. `seed` only numbers the
replicates: it shows how far from zero nothing is."""


def draw_figures(table: pl.DataFrame, index: pl.DataFrame) -> dict[str, Any]:
    """Draw the report's figures.

    Args:
        table: Of ``measure_diversity``.
        index: The zoo's published repos.

    Returns:
        matplotlib figures by file name without suffix.
    """
    return {
        "accuracy": _draw_histograms(index, "accuracy"),
        "generalization_gap": _draw_histograms(index, "generalization_gap"),
        "curves": _draw_curves(index),
        "distances": _draw_boxes(table, PAIR_METRICS[:5]),
        "behaviour": _draw_boxes(table, PAIR_METRICS[5:]),
        "robustness": _draw_boxes(table, PROBE_METRICS),
        "factors": _draw_factors(table),
    }


def describe_zoo(table: pl.DataFrame, index: pl.DataFrame) -> str:
    """Write the report's Markdown: counts, spread, pairs, what explains what."""
    finals = index.filter("is_final")
    counts = index.group_by("family", "dataset", "stage", maintain_order=True).agg(
        pl.col("is_final").sum().alias("models"),
        pl.len().alias("repos"),
        pl.col("accuracy").filter("is_final").min().alias("lowest accuracy"),
        pl.col("accuracy").filter("is_final").median().alias("median"),
        pl.col("accuracy").filter("is_final").max().alias("highest"),
        pl.col("generalization_gap").filter("is_final").median().alias("median gap"),
    )
    parts = [
        _COUNTS.format(num_models=len(finals), num_repos=len(index)),
        _write_table(counts),
        "![accuracy](figures/accuracy.png) ![gap](figures/generalization_gap.png)",
        "![validation accuracy by epoch](figures/curves.png)",
        _PAIRS,
        _write_table(_tabulate_pairs(table)),
        "![distances](figures/distances.png) ![behaviour](figures/behaviour.png)",
        _PROBES,
        _write_table(_tabulate_probes(table)),
        "![calibration and robustness](figures/robustness.png)",
        _FACTORS,
        _write_table(tabulate_explained(table)),
        "![explained shares](figures/factors.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def tabulate_explained(table: pl.DataFrame) -> pl.DataFrame:
    """Put what each factor explains into one row per factor, the strongest first."""
    rows = table.filter(
        pl.col("statistic") == "explained_adjusted", pl.col("metric").is_in(EXPLAINED_METRICS)
    )
    if rows.is_empty():
        return rows.select()
    split = pl.col("group").str.split_exact(": ", 1).struct
    wide = (
        rows.with_columns(
            split.field("field_0").str.replace(r" shape \d+$", "").alias("on"),
            split.field("field_1").alias("factor"),
        )
        .group_by("family", "on", "factor", "metric", maintain_order=True)
        .agg((pl.col("value") * pl.col("num_values")).sum() / pl.col("num_values").sum())
        .pivot("metric", index=["family", "on", "factor"], values="value")
    )
    metrics = [name for name in EXPLAINED_METRICS if name in wide.columns]
    strongest = pl.max_horizontal(metrics)
    return wide.select("family", "on", "factor", *metrics).sort(
        ["family", "on", strongest], descending=[False, False, True], maintain_order=True
    )


def _tabulate_pairs(table: pl.DataFrame) -> pl.DataFrame:
    return _tabulate(table.filter(pl.col("group").is_in(["same_root", "other_root"])), PAIR_METRICS)


def _tabulate_probes(table: pl.DataFrame) -> pl.DataFrame:
    return _tabulate(table, PROBE_METRICS)


def _tabulate(table: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    """Put medians into one row per metric and one column per family and group."""
    rows = table.filter(pl.col("statistic") == "median", pl.col("metric").is_in(metrics))
    if rows.is_empty():
        return rows.select()
    named = {"same_root": "relatives", "other_root": "strangers"}
    return rows.with_columns(
        pl.col("family") + " " + pl.col("group").replace(named), pl.col("metric").cast(pl.String)
    ).pivot("family", index="metric", values="value")


def _write_table(frame: pl.DataFrame) -> str:
    """Write a small frame as Markdown, numbers with three decimals."""
    if frame.is_empty():
        return ""
    head = [frame.columns, ["---"] * frame.width]
    rows = [[_write_cell(value) for value in row] for row in frame.iter_rows()]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*head, *rows])


def _write_cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "/")


def _make_figure(num_panels: int, *, width: float = 3.6, height: float = 2.8) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * max(1, num_panels), height), layout="constrained")
    panels = figure.subplots(1, max(1, num_panels), squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _draw_histograms(index: pl.DataFrame, column: str) -> Any:
    """Draw one histogram per family, data sets in colours."""
    finals = index.filter(pl.col("is_final") & pl.col(column).is_finite())
    families = finals["family"].unique(maintain_order=True).to_list()
    figure, panels = _make_figure(len(families))
    for axes, family in zip(panels, families, strict=False):
        own = finals.filter(pl.col("family") == family)
        names = own["dataset"].unique(maintain_order=True).to_list()
        values = [own.filter(pl.col("dataset") == name)[column].to_list() for name in names]
        axes.hist(values, bins=20, stacked=True, label=names)
        axes.set_title(family, loc="left", fontsize="medium")
        axes.set_xlabel(column.replace("_", " "))
        axes.legend(frameon=False, fontsize="small")
    panels[0].set_ylabel("models")
    return figure


def _draw_curves(index: pl.DataFrame) -> Any:
    """Draw the validation accuracy's quartiles by epoch, one line per population."""
    finals = index.filter("is_final")
    families = finals["family"].unique(maintain_order=True).to_list()
    figure, panels = _make_figure(len(families))
    for axes, family in zip(panels, families, strict=False):
        own = finals.filter(pl.col("family") == family)
        for (name,), models in own.group_by("population", maintain_order=True):
            epochs = (
                models.select(
                    "val_accuracies",
                    epoch=pl.int_ranges(1, pl.col("val_accuracies").list.len() + 1),
                )
                .explode("val_accuracies", "epoch")
                .group_by("epoch")
                .agg(
                    pl.col("val_accuracies").median().alias("median"),
                    pl.col("val_accuracies").quantile(0.25).alias("low"),
                    pl.col("val_accuracies").quantile(0.75).alias("high"),
                )
                .drop_nulls()
                .sort("epoch")
            )
            axes.plot(epochs["epoch"], epochs["median"], marker=".", label=str(name))
            axes.fill_between(epochs["epoch"], epochs["low"], epochs["high"], alpha=0.2)
        axes.set_title(family, loc="left", fontsize="medium")
        axes.set_xlabel("epoch")
        axes.legend(frameon=False, fontsize="small")
    panels[0].set_ylabel("validation accuracy")
    return figure


def _draw_boxes(table: pl.DataFrame, metrics: Sequence[str]) -> Any:
    """Draw one panel per metric, a box of quartiles and extremes per family and group."""
    rows = table.filter(pl.col("statistic").is_in(list(BOX_KEYS)))
    present = [name for name in metrics if name in set(rows["metric"])]
    figure, panels = _make_figure(len(present), height=3.2)
    for axes, metric in zip(panels, present, strict=False):
        own = rows.filter(pl.col("metric") == metric)
        boxes = [
            {BOX_KEYS[name]: value for name, value in part.select("statistic", "value").iter_rows()}
            | {"label": f"{family}\n{str(group).replace('_root', '')}", "fliers": []}
            for (family, group), part in own.group_by("family", "group", maintain_order=True)
        ]
        axes.bxp(boxes, showfliers=False, widths=0.6)
        axes.tick_params(axis="x", labelrotation=90, labelsize="x-small")
        axes.set_title(metric.replace("_", " "), loc="left", fontsize="medium")
    return figure


def _draw_factors(table: pl.DataFrame) -> Any:
    """Draw what each factor explains as a matrix of factors by measures."""
    wide = tabulate_explained(table)
    if wide.is_empty():
        return _make_figure(1)[0]
    metrics = [name for name in EXPLAINED_METRICS if name in wide.columns]
    wide = (
        wide.with_columns(pl.max_horizontal(metrics).alias("strongest"))
        .sort("strongest", descending=True, nulls_last=True)
        .head(3 * MAX_FACTORS)
    )
    figure, panels = _make_figure(1, width=6.4, height=1.2 + 0.22 * len(wide))
    values = wide.select(pl.col(metrics).fill_null(float("nan"))).to_numpy()
    image = panels[0].imshow(values, vmin=0, vmax=1, aspect="auto", cmap="viridis")
    labels = [" ".join(row) for row in wide.select("family", "on", "factor").iter_rows()]
    panels[0].set_yticks(range(len(labels)), labels, fontsize="x-small")
    panels[0].set_xticks(range(len(metrics)), metrics, rotation=30, ha="right", fontsize="small")
    figure.colorbar(image, ax=panels[0], label="explained share")
    return figure
