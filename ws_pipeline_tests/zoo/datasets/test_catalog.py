import numpy as np
import pytest

from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.zoo.datasets.catalog import SHIPPED_NAMES, load_dataset
from ws_pipeline.zoo.datasets.dataset import LabelledDataset, TextDataset
from ws_pipeline.zoo.datasets.digits import IMAGE_SETS, read_digits
from ws_pipeline.zoo.datasets.texts import (
    CHARACTERS,
    CLASS_ID,
    TEXT_SETS,
    UNKNOWN_ID,
    WINDOW_SETS,
    encode_text,
)


def labelled(name: str) -> LabelledDataset:
    dataset = load_dataset(name)
    assert isinstance(dataset, LabelledDataset)
    return dataset


def running(name: str) -> TextDataset:
    dataset = load_dataset(name)
    assert isinstance(dataset, TextDataset)
    return dataset


def test_the_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    images, labels = read_digits()
    bunch = load_digits()
    np.testing.assert_array_equal(images[:, 0] * 16, bunch.images)
    np.testing.assert_array_equal(labels, bunch.target)


@pytest.mark.parametrize("name", [*IMAGE_SETS, *WINDOW_SETS])
def test_labelled_sets_have_all_labels_in_every_split(name: str) -> None:
    dataset = labelled(name)
    for labels in (dataset.train_labels, dataset.val_labels, dataset.test_labels):
        assert set(labels) == set(range(dataset.num_labels))


@pytest.mark.parametrize("name", ["digits", "kinds", "topics"])
def test_no_input_stands_in_two_splits(name: str) -> None:
    dataset = labelled(name)
    parts = (dataset.train_inputs, dataset.val_inputs, dataset.test_inputs)
    train, val, test = ({row.tobytes() for row in part} for part in parts)
    assert not train & val
    assert not train & test
    assert not val & test


def test_variants_share_the_split_of_the_digits() -> None:
    base = labelled("digits")
    inverted, shifted, low = (labelled(f"digits-{n}") for n in ("inverted", "shifted", "low"))
    np.testing.assert_allclose(inverted.test_inputs, 1 - base.test_inputs)
    np.testing.assert_array_equal(shifted.test_inputs[..., 1:, 1:], base.test_inputs[..., :-1, :-1])
    np.testing.assert_array_equal(low.test_inputs, base.test_inputs[base.test_labels < 5])
    assert low.num_labels == 5


@pytest.mark.parametrize("name", TEXT_SETS)
def test_text_is_within_its_vocabulary_and_long_enough(name: str) -> None:
    dataset = running(name)
    for part in (dataset.train, dataset.val, dataset.test):
        assert part.max() < dataset.vocab_size == 3 + len(CHARACTERS)
        assert (part == UNKNOWN_ID).mean() < 0.01
        assert len(part) > 4_000


def test_text_sets_share_no_stretch_of_text() -> None:
    parts = [p for n in TEXT_SETS for d in [running(n)] for p in (d.train, d.val, d.test)]
    stretches = [
        {part[start : start + 60].tobytes() for start in range(len(part) - 60)} for part in parts
    ]
    for index, one in enumerate(stretches):
        for other in stretches[index + 1 :]:
            # Some examples stand in two topics inside longer paragraphs.
            assert len(one & other) < 0.02 * min(len(one), len(other))


def test_windows_start_with_the_class_character() -> None:
    dataset = labelled("kinds")
    assert dataset.is_text
    assert (dataset.train_inputs[:, 0] == CLASS_ID).all()
    assert (dataset.train_inputs[:, 1:] != CLASS_ID).all()


def test_encoding_bounds_the_alphabet() -> None:
    ids = encode_text("A\u00e9\u201d\n")
    assert ids[1] == UNKNOWN_ID
    assert CHARACTERS[ids[0] - 3] == "a"
    assert CHARACTERS[ids[2] - 3] == '"'
    assert CHARACTERS[ids[3] - 3] == "\n"


def test_an_unknown_data_set_is_refused_with_the_closest_names() -> None:
    with pytest.raises(ConfigError, match="'digit'; did you mean digits") as caught:
        load_dataset("digit")
    assert caught.value.reason == Reason.UNKNOWN_NAME


def test_every_name_loads() -> None:
    assert all(load_dataset(name).name == name for name in SHIPPED_NAMES)
