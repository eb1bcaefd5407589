import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.hub.listing import (
    MAX_CARD_BYTES,
    MAX_FILES,
    MAX_TAGS,
    is_file_name,
    is_repo_id,
    parse_detail,
    parse_listing,
    quarantine,
)
from ws_pipeline_tests.hub.scripted_hub import SHA, listing_row

FILE = {"rfilename": "model.safetensors", "size": 9, "blobId": SHA, "lfs": {"sha256": "b" * 64}}


def test_a_sound_row_becomes_columns() -> None:
    assert parse_listing(listing_row(gated="auto")) == {
        "hub_id": "507f1f77bcf86cd799439011",
        "repo_id": "owner/name",
        "revision": SHA,
        "created_at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        "last_modified": datetime(2024, 2, 2, 3, 4, 5, tzinfo=UTC),
        "gated": "auto",
        "private": False,
        "disabled": False,
    }


def test_a_hub_without_ids_is_keyed_by_name() -> None:
    one = parse_listing(listing_row(_id=None))["hub_id"]
    assert one == parse_listing(listing_row(_id=None))["hub_id"]
    assert one != parse_listing(listing_row(_id=None, id="owner/other"))["hub_id"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", None),
        ("id", 3),
        ("id", "../../etc"),
        ("id", "a/b/c"),
        ("id", "a b/c"),
        ("id", "owner/name\n"),
        ("id", "owner/" + "x" * 97),
        ("id", "-x/y"),
        ("_id", 7),
        ("_id", "../x"),
        ("_id", ""),
        ("_id", "a" * 65),
        ("sha", None),
        ("sha", "main"),
        ("sha", "A" * 40),
        ("sha", SHA + "\n"),
        ("createdAt", "yesterday"),
        ("createdAt", 5),
        ("createdAt", "0001-01-01T00:00:00Z"),
        ("createdAt", "9999-12-31T23:59:59-23:00"),
        ("lastModified", []),
        ("lastModified", "x" * 10_000),
        ("gated", "sometimes"),
        ("gated", {}),
        ("private", "yes"),
        ("disabled", 1),
    ],
)
def test_a_field_out_of_bounds_names_itself(field: str, value: Any) -> None:
    with pytest.raises(RefusedError, match=f"The hub's {field} is out of bounds: ") as caught:
        parse_listing(listing_row(**{field: value}))
    assert caught.value.reason is Reason.MALFORMED_ROW
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("item", [None, 3, "x", [], [listing_row()]])
def test_what_is_no_object_is_no_row(item: Any) -> None:
    with pytest.raises(RefusedError, match=r"The hub's the row is out of bounds|id is out of"):
        parse_listing(item)


def test_details_become_columns() -> None:
    detail = parse_detail(
        {
            "tags": ["bert", "license:mit", "base_model:finetune:up/base", "base_model:up/base"],
            "config": {"model_type": "bert", "architectures": ["BertModel"]},
            "cardData": {"license": ["MIT", "Apache-2.0"], "base_model": ["up/other", "no repo!"]},
            "library_name": "transformers",
            "safetensors": {"total": 30, "parameters": {"F32": 30}},
            "siblings": [FILE, {"rfilename": "a.json", "size": 1, "blobId": SHA}],
        }
    )
    assert detail["licence"] == "mit,apache-2.0"
    assert detail["base_models"] == ["up/other", "up/base"]
    assert detail["base_model_relation"] == "finetune"
    assert detail["num_parameters"] == 30
    assert [file["path"] for file in detail["files"]] == ["a.json", "model.safetensors"]
    assert detail["files"][1]["sha256"] == "b" * 64
    assert detail["files"][0]["sha256"] == ""
    assert json.loads(detail["config"])["model_type"] == "bert"


def test_the_licence_may_stand_in_a_tag_only() -> None:
    assert parse_detail({"tags": ["license:mit"]})["licence"] == "mit"
    assert parse_detail({})["licence"] == ""


def file_with(**changes: Any) -> dict[str, Any]:
    return {"siblings": [FILE | changes]}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([], Reason.MALFORMED_ROW),
        ({"tags": "bert"}, Reason.MALFORMED_ROW),
        ({"tags": [3]}, Reason.MALFORMED_ROW),
        ({"tags": ["a\nb"]}, Reason.MALFORMED_ROW),
        ({"tags": ["x" * 513]}, Reason.MALFORMED_ROW),
        ({"tags": ["x"] * (MAX_TAGS + 1)}, Reason.MALFORMED_ROW),
        ({"config": "x"}, Reason.MALFORMED_ROW),
        ({"config": {"model_type": 3}}, Reason.MALFORMED_ROW),
        ({"config": {"architectures": "Bert"}}, Reason.MALFORMED_ROW),
        ({"config": {"model_type": "bert", "auto_map": {"x": "y" * 70_000}}}, Reason.MALFORMED_ROW),
        ({"cardData": ["x"]}, Reason.MALFORMED_ROW),
        ({"library_name": "\x00"}, Reason.MALFORMED_ROW),
        ({"siblings": {}}, Reason.MALFORMED_ROW),
        ({"siblings": [3]}, Reason.MALFORMED_ROW),
        ({"siblings": [FILE] * (MAX_FILES + 1)}, Reason.TOO_MANY_FILES),
        ({"siblings": [FILE, FILE]}, Reason.UNSAFE_FILE_NAME),
        (file_with(rfilename="../evil"), Reason.UNSAFE_FILE_NAME),
        (file_with(rfilename=None), Reason.UNSAFE_FILE_NAME),
        (file_with(size=-1, lfs={}), Reason.MALFORMED_ROW),
        (file_with(size="9"), Reason.MALFORMED_ROW),
        (file_with(size=True), Reason.MALFORMED_ROW),
        (file_with(size=2**41), Reason.MALFORMED_ROW),
        (file_with(lfs={"sha256": "x", "size": 9}), Reason.MALFORMED_ROW),
        (file_with(blobId="../../x"), Reason.MALFORMED_ROW),
    ],
)
def test_a_hostile_detail_is_refused_with_its_reason(item: Any, reason: Reason) -> None:
    with pytest.raises(RefusedError, match="is out of bounds") as caught:
        parse_detail(item)
    assert caught.value.reason is reason


def test_a_card_above_the_cap_keeps_what_lineage_needs() -> None:
    card = {"license": "mit", "base_model": "a/b", "widget": "x" * MAX_CARD_BYTES}
    assert json.loads(parse_detail({"cardData": card})["card"]) == {
        "license": "mit",
        "base_model": "a/b",
    }
    config = {"model_type": "bert", "tokenizer_config": {"chat_template": "x" * 70_000}}
    assert json.loads(parse_detail({"config": config})["config"]) == {"model_type": "bert"}


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "./a", "a/.", "a\\b", "C:x", "a\0b",
     "a\nb", "a\x7f", "\u202ea", "x" * 513, "é" * 257, None, 3, "\ud800"],
)  # fmt: skip
def test_an_unsafe_file_name_is_none(name: Any) -> None:
    assert not is_file_name(name)


@pytest.mark.parametrize("name", ["a", "unet/model.fp16.safetensors", ".gitattributes", "模型.bin"])
def test_a_plain_file_name_is_one(name: str) -> None:
    assert is_file_name(name)


@pytest.mark.parametrize("name", ["gpt2", "a/b", "A_1/x.y-z", "_a/_b"])
def test_a_repo_id_is_one(name: str) -> None:
    assert is_repo_id(name)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["rfilename", "size", "sha256", "model_type", "license", "base_model", "total"]
            ),
            inner,
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["id", "_id", "sha", "createdAt", "gated", "tags", "config", "cardData", "siblings",
             "safetensors", "library_name"]
        ),
        _JSON,
    )
)  # fmt: skip
def test_any_json_is_parsed_or_refused(changes: dict[str, Any]) -> None:
    reasons = set()
    for parse in (parse_listing, parse_detail):
        try:
            parse(listing_row(**changes))
        except RefusedError as error:
            reasons.add(error.reason)
    assert reasons <= {Reason.MALFORMED_ROW, Reason.UNSAFE_FILE_NAME, Reason.TOO_MANY_FILES}


def test_a_card_with_half_a_character_can_be_stored() -> None:
    card = parse_detail({"cardData": {"text": "\ud800"}})["card"]
    assert card.encode() == b'{"text":"\\ud800"}'


def test_a_quarantined_row_keeps_its_name_over_crawls() -> None:
    one = quarantine(listing_row(sha="x", downloads=1), "why")
    other = quarantine(listing_row(sha="x", downloads=2), "why")
    assert one == other
    assert one["repo_id"] == "owner/name"
    assert one["reason"] == "malformed_row"
    assert quarantine(3, "why")["repo_id"].startswith("malformed-")
    assert quarantine({"id": "../x"}, "why")["hub_id"] != quarantine({"id": "y"}, "why")["hub_id"]
