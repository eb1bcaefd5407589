"""Image data sets come from a hub by name; here from the embedded one."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.hub_images import load_hub_images


def encode(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_split(path: Path, count: int, *, colour: bool = False, **columns: object) -> None:
    generator = np.random.default_rng(count)
    shape = (8, 8, 3) if colour else (8, 8)
    images = [encode(generator.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]
    frame = pl.DataFrame(
        {
            "image": [
                {"bytes": image, "path": f"{place}.png"} for place, image in enumerate(images)
            ],
            "label": [place % 3 for place in range(count)],
        }
    ).with_columns(**columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "hub"
    folder.mkdir()
    with serve_in_thread(folder) as url:
        yield folder / "datasets" / "lab", url


def test_a_data_set_comes_by_name_and_stays(hub: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = hub
    for part, count in (("00000", 20), ("00001", 10)):
        write_split(folder / "tiny" / "data" / f"train-{part}-of-00002.parquet", count)
    write_split(folder / "tiny" / "data" / "test-00000-of-00001.parquet", 6)
    dataset = load_hub_images("hub.lab.tiny.8", tmp_path, endpoint=url)
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.num_labels == 3
    assert len(dataset.train_labels) == 27
    assert len(dataset.val_labels) == 3
    assert dataset.test_labels.tolist() == [0, 1, 2, 0, 1, 2]
    first = np.random.default_rng(6).integers(0, 256, (8, 8), dtype=np.uint8)
    assert np.array_equal(dataset.test_inputs[0, 0], first)
    load_hub_images.cache_clear()
    nobody = "http://127.0.0.1:9"
    again = load_hub_images("hub.lab.tiny.8", tmp_path, endpoint=nobody)
    assert np.array_equal(again.train_inputs, dataset.train_inputs), "no network the second time"


def test_colour_size_and_a_validation_split_for_a_test_set(
    hub: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = hub
    write_split(folder / "colour" / "default" / "train" / "0000.parquet", 12, colour=True)
    write_split(folder / "colour" / "default" / "validation" / "0000.parquet", 3, colour=True)
    dataset = load_hub_images("hub.lab.colour.4", tmp_path, endpoint=url)
    assert dataset.image_shape == (3, 4, 4)
    assert len(dataset.test_labels) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": pl.lit(1)}, "must have a column of images"),
        ({"label": pl.lit("cat")}, "must have a column of images and one of integer labels"),
        ({"label": pl.lit(-1)}, "must have a label from 0 on"),
        ({"image": pl.struct(bytes=pl.lit(b"no image"))}, "must hold images that Pillow can read"),
    ],
)
def test_what_is_no_image_data_set_is_refused(
    hub: tuple[Path, str], tmp_path: Path, columns: dict[str, pl.Expr], message: str
) -> None:
    folder, url = hub
    for split in ("train", "test"):
        write_split(folder / "odd" / f"{split}-0.parquet", 6, **columns)
    with pytest.raises(ConfigError, match=message):
        load_hub_images("hub.lab.odd.8", tmp_path, endpoint=url)


def test_one_without_splits_is_refused(hub: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = hub
    write_split(folder / "half" / "train-0.parquet", 6)
    with pytest.raises(ConfigError, match="must have Parquet files of train and test"):
        load_hub_images("hub.lab.half.8", tmp_path, endpoint=url)


def test_without_a_network_the_way_out_is_said(hub: tuple[Path, str], tmp_path: Path) -> None:
    remedy = re.escape("put its images into a folder NAME/train/<label>/")
    with pytest.raises(MissingInputError, match=remedy):
        load_hub_images("hub.lab.none.8", tmp_path, endpoint=hub[1])
    with pytest.raises(MissingInputError, match=remedy):
        load_hub_images("hub.lab.none.8", tmp_path, endpoint="http://127.0.0.1:9")


def test_sizes_have_a_bound() -> None:
    with pytest.raises(ConfigError, match=r"at most 512 pixels, got 'hub\.lab\.tiny\.999'"):
        load_dataset("hub.lab.tiny.999")
