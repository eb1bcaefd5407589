"""A zoo as one data-set repo: its index and diversity table as Parquet, figures, a card. Does I/O.

::

    report/README.md            the card, which huggingface_hub's DatasetCard reads
    report/index.parquet        a row per repo: factors, curves, metrics, lineage
    report/diversity.parquet    the diversity table
    report/figures/*.png

Written into the zoo's folder, published by ``publish`` and ``push``. No torch.
"""

import io
from pathlib import Path

import polars as pl
from huggingface_hub import DatasetCard, DatasetCardData

from ws_pipeline.zoo.config import ZooConfig
from ws_pipeline.zoo.diversity_report import describe_zoo, draw_figures
from ws_pipeline.zoo.index import INDEX_FILE, read_index, write_if_changed

REPORT_FOLDER = "report"
DIVERSITY_FILE = "diversity.parquet"
FIGURES_FOLDER = "figures"

SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
"""The Hub's names of data-set sizes, by the number of rows that they stay below."""


def write_report(folder: Path, config: ZooConfig, table: pl.DataFrame) -> Path:
    """Write a zoo's report, which is its data-set repo; files that do not change stay.

    Args:
        folder: The zoo's.
        config: What was trained.
        table: Of ``measure_diversity``.

    Returns:
        The report's folder.

    Raises:
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    index = read_index(folder)
    report = folder / REPORT_FOLDER
    (report / FIGURES_FOLDER).mkdir(parents=True, exist_ok=True)
    for name, figure in draw_figures(table, index).items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
        write_if_changed(report / FIGURES_FOLDER / f"{name}.png", picture.getvalue())
    for name, frame in ((INDEX_FILE, index), (DIVERSITY_FILE, table)):
        write_if_changed(report / name, parquet_bytes(frame))
    card = write_dataset_card(config, index, describe_zoo(table, index))
    write_if_changed(report / "README.md", card.encode())
    return report


def parquet_bytes(frame: pl.DataFrame) -> bytes:
    """Return a frame as the bytes of a Parquet file."""
    content = io.BytesIO()
    frame.write_parquet(content)
    return content.getvalue()


def write_dataset_card(config: ZooConfig, index: pl.DataFrame, report: str) -> str:
    """Write the README.md of the data-set repo."""
    size = next((name for limit, name in SIZE_CATEGORIES if len(index) < limit), "100K<n<1M")
    data = DatasetCardData(
        license=config.licence,
        pretty_name=f"Model zoo {config.name}",
        tags=["model-zoo", "weight-space-learning", *sorted(index["family"].unique())],
        size_categories=[size],
        configs=[
            {"config_name": "models", "data_files": INDEX_FILE, "default": True},
            {"config_name": "diversity", "data_files": DIVERSITY_FILE},
        ],
    )
    example = f"{config.owner}/{index['name'][0]}"
    body = f"""# Model zoo {config.name}

{config.description}

Each row of `{INDEX_FILE}` is one model repo, `{example}` for one: `name` and `owner`, what made it
(`factors`, as JSON), what it descends from (`base_model`, `root`), its metrics on held-out data and
its curves by epoch. `{DIVERSITY_FILE}` has the numbers of this report: one row per family, metric,
group and statistic.

{report}"""
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))
