"""The demo's odd repos."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ws_pipeline.errors import MissingInputError, WeightsError
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline.zoo.oddities import put_nan, write_oddities

NAMES = ["broken-file", "gated", "nan-weights", "pickle-only"]


@pytest.fixture
def like(tmp_path: Path) -> Path:
    folder = tmp_path / "like"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "mlp", "architectures": ["Mlp"]}')
    (folder / "README.md").write_text(
        "---\nlicense: mit\ntags: [mlp]\nbase_model: a/b\nmodel-index: []\n---\n# like\n"
    )
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    save_file({"a.weight": weights, "count": np.array(3)}, folder / "model.safetensors")
    return folder


def test_four_repos_explain_themselves_on_the_hub(tmp_path: Path, like: Path) -> None:
    hub = tmp_path / "hub"
    assert write_oddities(hub, like) == [f"oddities/{name}" for name in NAMES]
    with serve_in_thread(hub) as endpoint:
        api = HfApi(endpoint=endpoint, token=False)
        models = {m.id: m for m in api.list_models(filter="oddity", full=True, cardData=True)}
    assert sorted(models) == [f"oddities/{name}" for name in NAMES]
    for name in NAMES:
        card = models[f"oddities/{name}"].card_data
        assert (card.license, card.base_model) == ("mit", None)
        assert "mlp" in models[f"oddities/{name}"].tags
        config = (hub / "oddities" / name / "config.json").read_bytes()
        assert config == (like / "config.json").read_bytes()
        assert "left out" in (hub / "oddities" / name / "README.md").read_text()
    assert models["oddities/gated"].gated == "manual"
    assert [s.rfilename for s in models["oddities/pickle-only"].siblings] == [
        "README.md",
        "config.json",
        "pytorch_model.bin",
    ]


def test_the_broken_file_claims_a_header_longer_than_itself(tmp_path: Path, like: Path) -> None:
    write_oddities(tmp_path / "hub", like)
    broken = tmp_path / "hub/oddities/broken-file/model.safetensors"
    data = broken.read_bytes()
    assert int.from_bytes(data[:8], "little") > len(data)
    with pytest.raises(SafetensorError):
        load_file(broken)


def test_one_weight_of_the_nan_repo_is_not_a_number(tmp_path: Path, like: Path) -> None:
    write_oddities(tmp_path / "hub", like)
    odd = load_file(tmp_path / "hub/oddities/nan-weights/model.safetensors")
    healthy = load_file(like / "model.safetensors")
    assert np.isnan(odd["a.weight"]).sum() == 1
    assert np.array_equal(odd["a.weight"].flat[1:], healthy["a.weight"].flat[1:])
    assert np.array_equal(odd["count"], healthy["count"])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_every_float_has_its_nan(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"empty": np.zeros(0, dtype), "x": np.ones(3, dtype)}, path)
    path.write_bytes(put_nan(path.read_bytes()))
    assert np.isnan(load_file(path)["x"]).tolist() == [True, False, False]


def test_a_second_run_touches_nothing_and_a_damaged_file_is_mended(
    tmp_path: Path, like: Path
) -> None:
    hub = tmp_path / "hub"
    write_oddities(hub, like)
    paths = sorted(hub.rglob("*"))
    before = {path: path.stat().st_mtime_ns for path in paths}
    write_oddities(hub, like)
    assert {path: path.stat().st_mtime_ns for path in sorted(hub.rglob("*"))} == before
    settings = hub / "oddities/gated/.hub.json"
    settings.write_text("{}")
    write_oddities(hub, like)
    assert json.loads(settings.read_text()) == {"gated": "manual"}


def test_a_repo_without_what_is_needed_is_refused(tmp_path: Path, like: Path) -> None:
    save_file({"count": np.array(3)}, like / "model.safetensors")
    with pytest.raises(WeightsError, match=r"F32.*name another repo"):
        write_oddities(tmp_path / "hub", like)
    (like / "config.json").unlink()
    with pytest.raises(MissingInputError, match=r"no config\.json in .*healthy repo"):
        write_oddities(tmp_path / "hub", like)
