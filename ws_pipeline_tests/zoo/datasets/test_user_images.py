import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.datasets.image_files import read_idx
from ws_pipeline.zoo.datasets.user_images import USER_SETS


def load(name: str, folder: Path) -> LabelledDataset:
    dataset = load_dataset(name, folder)
    assert isinstance(dataset, LabelledDataset)
    return dataset


def draw(num_rows: int, *shape: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (num_rows, *shape), dtype=np.uint8)
    return images, generator.integers(0, 10, num_rows, dtype=np.uint8)


def idx_bytes(values: NDArray[np.uint8]) -> bytes:
    head = struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape)
    return head + values.tobytes()


def write_mnist(folder: Path) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    folder.mkdir(parents=True)
    parts = {"train": draw(40, 28, 28), "t10k": draw(12, 28, 28, seed=1)}
    for split, (images, labels) in parts.items():
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return parts


def test_mnist_files_are_read_gzipped_or_not_wherever_they_lie_below_the_name(
    tmp_path: Path,
) -> None:
    parts = write_mnist(tmp_path / "fashion-mnist" / "raw")
    dataset = load("fashion-mnist", tmp_path)
    np.testing.assert_array_equal(dataset.test_inputs[:, 0], parts["t10k"][0])
    np.testing.assert_array_equal(dataset.test_labels, parts["t10k"][1])
    assert dataset.image_shape == (1, 28, 28)
    assert (len(dataset.train_labels), len(dataset.val_labels)) == (36, 4)


def test_validation_is_a_fixed_part_of_the_training_set(tmp_path: Path) -> None:
    parts = write_mnist(tmp_path / "mnist")
    dataset = load("mnist", tmp_path)
    both = np.concatenate([dataset.train_inputs, dataset.val_inputs])[:, 0]
    assert sorted(map(bytes, both)) == sorted(map(bytes, parts["train"][0]))
    labels = {bytes(image): label for image, label in zip(*parts["train"], strict=True)}
    for image, label in zip(dataset.val_inputs, dataset.val_labels, strict=True):
        assert labels[bytes(image)] == label


def test_the_lower_half_of_the_labels_is_a_data_set_of_its_own(tmp_path: Path) -> None:
    parts = write_mnist(tmp_path / "kmnist")
    low, whole = load("kmnist-low", tmp_path), load("kmnist", tmp_path)
    images, labels = parts["t10k"]
    np.testing.assert_array_equal(low.test_inputs[:, 0], images[labels < 5])
    np.testing.assert_array_equal(low.test_labels, labels[labels < 5])
    assert (low.name, low.num_labels) == ("kmnist-low", 5)
    assert len(low.train_labels) == (whole.train_labels < 5).sum()
    with pytest.raises(ConfigError, match="no data set 'digit-low'; did you mean digits-low"):
        load("digit-low", tmp_path)


@pytest.mark.parametrize(("name", "num_label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_cifars_binary_rows_are_labels_and_planes(
    tmp_path: Path, name: str, num_label_bytes: int
) -> None:
    images, labels = draw(20, 3, 32, 32)
    coarse = np.full((20, num_label_bytes - 1), 3, np.uint8)
    rows = np.concatenate([coarse, labels[:, None], images.reshape(20, -1)], axis=1)
    (tmp_path / name).mkdir()
    for file in (*USER_SETS[name][1], *USER_SETS[name][2]):
        (tmp_path / name / file).write_bytes(rows.tobytes())
    dataset = load(name, tmp_path)
    np.testing.assert_array_equal(dataset.test_inputs, images)
    np.testing.assert_array_equal(dataset.test_labels, labels)


def test_stl10_is_stored_column_by_column_with_labels_from_one(tmp_path: Path) -> None:
    images, labels = draw(12, 3, 96, 96)
    (tmp_path / "stl10").mkdir()
    for split in ("train", "test"):
        columns = np.ascontiguousarray(images.transpose(0, 1, 3, 2))
        (tmp_path / "stl10" / f"{split}_X.bin").write_bytes(columns.tobytes())
        (tmp_path / "stl10" / f"{split}_y.bin").write_bytes((labels + 1).tobytes())
    dataset = load("stl10", tmp_path)
    np.testing.assert_array_equal(dataset.test_inputs, images)
    np.testing.assert_array_equal(dataset.test_labels, labels)


def test_svhn_counts_zero_as_ten(tmp_path: Path) -> None:
    from scipy.io import savemat

    images, labels = draw(12, 3, 32, 32)
    (tmp_path / "svhn").mkdir()
    for split in ("train", "test"):
        stored = np.where(labels == 0, 10, labels)[:, None]
        savemat(
            tmp_path / "svhn" / f"{split}_32x32.mat",
            {"X": images.transpose(2, 3, 1, 0), "y": stored},
        )
    dataset = load("svhn", tmp_path)
    np.testing.assert_array_equal(dataset.test_inputs, images)
    np.testing.assert_array_equal(dataset.test_labels, labels)


def write_folder(folder: Path, *, num_images: int = 6) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for label, shade in (("cat", 40), ("dog", 200)):
            (folder / split / label).mkdir(parents=True)
            for number in range(num_images):
                image = Image.new("L", (12 + number, 9), shade)
                image.save(folder / split / label / f"{number}.png")


def test_an_image_folder_becomes_squares_labelled_by_its_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets")
    dataset = load("folder-pets-8", tmp_path)
    assert dataset.image_shape == (3, 8, 8)
    assert dataset.num_labels == 2
    assert (dataset.test_inputs[dataset.test_labels == 0] == 40).all()
    assert (dataset.test_inputs[dataset.test_labels == 1] == 200).all()


def test_a_missing_data_set_says_which_file_is_missing_and_where(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"data_batch_1.bin.*WS_DATA"):
        load_dataset("cifar10", tmp_path)
    with pytest.raises(MissingInputError, match=r"train/<label>/"):
        load_dataset("folder-pets-32", tmp_path)
    with pytest.raises(MissingInputError, match="name the folder it lies in"):
        load_dataset("mnist")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "IDX file of bytes"),
        (b"\x80\x04\x95pickled", "IDX file of bytes"),
        (struct.pack(">IIII", 0x0803, 2**31, 2**31, 2**31), "at most"),
        (struct.pack(">IIII", 0x0803, 2, 3, 3) + bytes(17), "must hold 18 values"),
        (struct.pack(">IIII", 0x0803, 2, 3, 3) + bytes(19), "must hold 18 values"),
        (struct.pack(">I", 0x0803) + b"\0", "must state 3 sizes"),
    ],
)
def test_a_broken_idx_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_idx(path)


def test_rows_that_do_not_fit_labels_out_of_range_and_bombs_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "cifar10").mkdir()
    for file in (*USER_SETS["cifar10"][1], "test_batch.bin"):
        (tmp_path / "cifar10" / file).write_bytes(bytes(3_072))
    with pytest.raises(ConfigError, match="whole rows of 3073 bytes"):
        load_dataset("cifar10", tmp_path)
    for file in (*USER_SETS["cifar10"][1], "test_batch.bin"):
        (tmp_path / "cifar10" / file).write_bytes(b"\x0a" + bytes(3_072))
    with pytest.raises(ConfigError, match="labels below 10, it has 10"):
        load_dataset("cifar10", tmp_path)
    write_folder(tmp_path / "bomb", num_images=1)
    Image.new("1", (40_000, 40_000)).save(tmp_path / "bomb" / "train" / "cat" / "big.png")
    with pytest.raises(ConfigError, match=r"pixels|Pillow"):
        load_dataset("folder-bomb-8", tmp_path)
    (tmp_path / "bomb" / "train" / "cat" / "big.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match="Pillow can read"):
        load_dataset("folder-bomb-8", tmp_path)
