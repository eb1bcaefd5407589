"""Fine-tunes name their parents, permuted ones once they are aligned."""

from pathlib import Path

import pytest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.parents import PARENTS_SCHEMA, ParentSearch, recover_parents, summarise_recall


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_parents_are_found_from_weights(tiny_folder: Path, distance: str) -> None:
    table = recover_parents(tiny_folder, "mlp", ParentSearch(distance=distance))
    assert dict(table.schema) == PARENTS_SCHEMA
    assert (table["found"] == table["parent"]).all()
    assert set(table["num_candidates"]) == {4}
    recall = summarise_recall(table)
    assert recall.value == 1.0
    assert recall.chance == 0.25
    assert recall.low < 1.0 <= recall.high + 1e-9


def test_alignment_undoes_a_permutation(tiny_folder: Path) -> None:
    plain = recover_parents(tiny_folder, "mlp", ParentSearch())
    aligned = recover_parents(tiny_folder, "mlp", ParentSearch(permute=True, align=True))
    assert (aligned["rank"] == 1).all()
    assert aligned["name"].to_list() == plain["name"].to_list()
    again = recover_parents(tiny_folder, "mlp", ParentSearch(permute=True, align=True))
    assert again.equals(aligned)


def test_heads_started_afresh_are_left_out(transformers_folder: Path) -> None:
    table = recover_parents(transformers_folder, "vit", ParentSearch(permute=True, align=True))
    assert table["rank"].to_list() == [1]


def test_a_zoo_without_finetunes_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(MissingInputError, match="fine-tunes of 'cnn'"):
        recover_parents(tiny_folder, "cnn", ParentSearch())
