from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.repo import KEY_SCHEMA, REPO_SCHEMA, accept, build_frame
from ws_pipeline.hub.selection import SELECTION_PAYLOAD, SelectionPolicy, select_family
from ws_pipeline.hub.triage import HEADER_PAYLOAD

REPO_PAYLOAD = {name: dtype for name, dtype in REPO_SCHEMA.items() if name not in KEY_SCHEMA}


def key(number: int) -> dict[str, str]:
    return {"hub_id": f"id{number}", "repo_id": f"zoo/{number}", "revision": "a" * 40}


def tensor(name: str = "w", dtype: str = "F32", num_params: int = 1000) -> dict[str, Any]:
    return {
        "file": "model.safetensors", "name": name, "dtype": dtype, "shape": [num_params],
        "num_params": num_params, "num_bytes": 4, "start": 0, "end": 4,
    }  # fmt: skip


def pair(
    number: int = 1, *, tensors: list[dict[str, Any]] | None = None, **repo: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    tensors = tensors or [tensor()]
    digest = repo.pop("digest", f"{number:064x}")
    file = {"path": "model.safetensors", "num_bytes": 9, "sha256": digest, "blob_id": ""}
    columns = {
        "family": "mlp", "licence": "mit", "library": "", "tags": [], "config": "{}",
        "base_model_relation": "", "files": [file],
        "created_at": datetime(2024, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    header = {
        "files": [{"path": "model.safetensors", "header_bytes": 1, "num_bytes": 9}],
        "tensors": tensors,
        "num_tensors": len(tensors),
        "num_params": sum(t["num_params"] for t in tensors),
        "num_bytes": 4,
        "dtypes": sorted({t["dtype"] for t in tensors}),
        "signature": "s",
    }
    return accept(key(number), **(columns | repo)), accept(key(number), **header)


def select(
    *pairs: tuple[dict[str, Any], dict[str, Any]], policy: SelectionPolicy | None = None
) -> pl.DataFrame:
    repos = build_frame([repo for repo, _ in pairs], REPO_PAYLOAD)
    headers = build_frame([header for _, header in pairs], HEADER_PAYLOAD)
    return select_family(repos, headers, policy or SelectionPolicy())


def test_a_plain_model_is_selected() -> None:
    frame = select(pair())
    assert frame.schema == {**KEY_SCHEMA, **SELECTION_PAYLOAD}
    row = frame.to_dicts()[0]
    assert (row["accepted"], row["family"], row["num_params"]) == (True, "mlp", 1000)


@pytest.mark.parametrize(
    ("policy", "options", "reason"),
    [
        ({"licences": ("apache-2.0",)}, {}, "licence_not_allowed"),
        ({"licences": ("mit",)}, {"licence": "mit,gpl-3.0"}, "licence_not_allowed"),
        ({"licences": ("mit",)}, {"licence": ""}, "licence_not_allowed"),
        ({"licences": ("mit", "")}, {"licence": ""}, ""),
        ({"min_params": 1001}, {}, "too_small"),
        ({"max_params": 999}, {}, "too_large"),
        ({}, {"config": '{"auto_map": {}}'}, "custom_code"),
        ({}, {"tags": ["custom_code"]}, "custom_code"),
        ({"allow_custom_code": True}, {"tags": ["custom_code"]}, ""),
        ({}, {"base_model_relation": "adapter"}, "adapter"),
        ({}, {"library": "peft"}, "adapter"),
        ({}, {"config": '{"quantization_config": {"quant_method": "gptq"}}'}, "quantized"),
        ({}, {"config": '{"quantization_config": [1]}'}, "quantized"),
        ({}, {"tags": ["AWQ"]}, "quantized"),
        ({}, {"tensors": [tensor("a.qweight", "I32"), tensor()]}, "quantized"),
        ({}, {"tensors": [tensor("a", "U8", 900), tensor("b", "F16", 100)]}, "quantized"),
        ({"allow_quantized": True}, {"tensors": [tensor("a", "U8", 900), tensor("b")]}, ""),
        ({}, {"tensors": [tensor("bn.num_batches_tracked", "I64", 1), tensor()]}, ""),
        ({}, {"tensors": [tensor("a", "F8_E4M3"), tensor()]}, "unsupported_dtype"),
        ({"dtypes": ("F32",)}, {"tensors": [tensor("a", "F16")]}, "unsupported_dtype"),
        ({"allow_quantized": True}, {"tensors": [tensor("a", "I8")]}, "unsupported_dtype"),
    ],
)
def test_a_rule_decides(policy: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    row = select(pair(**options), policy=SelectionPolicy(**policy)).to_dicts()[0]
    assert row["reason"] == reason
    assert row["accepted"] == (reason == "")
    assert bool(row["detail"]) == bool(reason)


def test_of_identical_files_the_earliest_created_is_kept() -> None:
    old = datetime(2023, 1, 1, tzinfo=UTC)
    frame = select(
        pair(1, digest="f" * 64),
        pair(2, digest="f" * 64, created_at=old),
        pair(3, digest="f" * 64, created_at=None),
        pair(4),
    )
    verdicts = dict(zip(frame["hub_id"], frame["reason"], strict=True))
    assert verdicts == {"id1": "duplicate_files", "id2": "", "id3": "duplicate_files", "id4": ""}
    detail = frame.filter(pl.col("hub_id") == "id1")["detail"].item()
    assert detail == "Its weight files are byte for byte those of zoo/2."


def test_a_refused_repo_does_not_make_its_copy_a_duplicate() -> None:
    old = datetime(2023, 1, 1, tzinfo=UTC)
    frame = select(
        pair(1, digest="f" * 64, created_at=old, tags=["custom_code"]), pair(2, digest="f" * 64)
    )
    assert frame["reason"].to_list() == ["custom_code", ""]


def test_repos_without_digests_are_no_duplicates_of_each_other() -> None:
    assert select(pair(1, digest=""), pair(2, digest=""))["accepted"].all()


def test_a_header_of_another_revision_is_left_out() -> None:
    repo, header = pair()
    assert select((repo | {"revision": "b" * 40}, header)).is_empty()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_params": 5, "max_params": 4}, "0 <= min_params <= max_params; got 5 and 4"),
        ({"min_params": -1}, "0 <= min_params <= max_params; got -1"),
        ({"dtypes": ("I8",)}, "dtypes must be among F64, F32, F16, BF16; got I8"),
        ({"dtypes": ()}, "dtypes must be among .*; got none"),
    ],
)
def test_a_policy_out_of_bounds_names_its_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SelectionPolicy(**fields)
