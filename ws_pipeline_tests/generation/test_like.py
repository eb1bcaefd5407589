"""From files to files: what is written loads, is recorded, and comes out the same again."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.cli.app import run
from ws_pipeline.errors import WeightsError
from ws_pipeline.generation.config import DensityConfig
from ws_pipeline.generation.like import generate_like
from ws_pipeline.zoo.architectures import load_model
from ws_pipeline_tests.generation.conftest import make_backbone


def test_new_models_load_like_their_anchors_and_say_what_they_are(
    backbone: Backbone, repos: list[Path], tmp_path: Path
) -> None:
    result = generate_like(
        backbone, repos, tmp_path, config=DensityConfig(bandwidth=0.2), num_models=2, seed=5
    )
    assert [model.folder.name for model in result.models] == ["model-000", "model-001"]
    assert result.reconstruction_error < 1e-6
    assert "bn1.running_mean" in result.copied
    assert "conv1.weight" not in result.copied
    for index, model in enumerate(result.models):
        load_model(model.folder)  # strict: every tensor, in its shape
        assert not (model.folder / "README.md").exists()
        record = json.loads((model.folder / "generation.json").read_text())
        assert record["index"] == index
        assert record["seed"] == 5
        assert record["copied"] == list(result.copied)
        assert record["nearest_anchor"] == model.nearest_anchor
        assert len(record["anchors"]) == len(repos)
        assert 0.0 < model.distance < 0.5


def test_the_same_call_writes_the_same_bytes(
    backbone: Backbone, repos: list[Path], tmp_path: Path
) -> None:
    for name in ("one", "other"):
        generate_like(backbone, repos, tmp_path / name, config=DensityConfig(), seed=1)
    one, other = (
        (tmp_path / name / "model-000" / "model.safetensors").read_bytes()
        for name in ("one", "other")
    )
    assert one == other


def test_sixteen_bits_shards_and_tied_copies_stay_what_they_are(
    backbone: Backbone, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    table = generator.standard_normal((6, 8)).astype(ml_dtypes.bfloat16)
    dense = generator.standard_normal((8, 8)).astype(np.float16)
    folder = tmp_path / "anchor"
    folder.mkdir()
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    save_file({"embed_tokens.weight": table}, folder / first)
    save_file({"dense.weight": dense, "lm_head.weight": table}, folder / second)
    places = {"embed_tokens.weight": first, "dense.weight": second, "lm_head.weight": second}
    index = {"metadata": {"total_size": 320}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (result,) = generate_like(backbone, [folder], tmp_path / "out", config=DensityConfig()).models
    again = load_file(result.folder / first) | load_file(result.folder / second)
    assert again["embed_tokens.weight"].dtype == table.dtype
    assert again["dense.weight"].dtype == np.float16
    assert not np.array_equal(again["dense.weight"], dense)
    np.testing.assert_array_equal(again["lm_head.weight"], again["embed_tokens.weight"])
    assert (result.folder / "model.safetensors.index.json").is_file()


def test_anchors_of_two_sizes_are_refused(
    backbone: Backbone, repos: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"dense.weight": np.ones((4, 4), np.float32)}, other)
    with pytest.raises(WeightsError, match="All anchors must have one shape"):
        generate_like(backbone, [repos[0], other], tmp_path / "out", config=DensityConfig())
    assert not (tmp_path / "out").exists()


def test_the_command_writes_models_and_prints_them(
    repos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_backbone().save_pretrained(tmp_path / "backbone")
    given = ["--backbone", str(tmp_path / "backbone"), "--out", str(tmp_path / "new")]
    arguments = ["generate", "--like", str(repos[0]), str(repos[1]), *given, "--num", "2"]
    assert run([*arguments, "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert len(found["models"]) == 2
    assert not shown.err
    load_model(Path(found["models"][1]["model"]))
    assert run([*arguments, "--like", str(repos[2])]) == 0
    assert "Copied 9 tensors" in capsys.readouterr().out


def test_a_backbone_that_loses_function_is_warned_of(
    repos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_backbone(8).save_pretrained(tmp_path / "backbone")
    given = ["--backbone", str(tmp_path / "backbone"), "--out", str(tmp_path / "new")]
    assert run(["generate", "--like", str(repos[0]), *given]) == 0
    assert "ws-pipeline train --recipe generation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (("--density", "kde"), "invalid_config"),
        (("--bandwidth", "-1"), "invalid_config"),
        (("--num", "0"), "misuse"),
    ],
)
def test_misuse_has_a_reason_and_writes_nothing(
    repos: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: tuple[str, ...],
    code: str,
) -> None:
    make_backbone().save_pretrained(tmp_path / "backbone")
    given = ["--backbone", str(tmp_path / "backbone"), "--out", str(tmp_path / "new")]
    assert run(["generate", "--like", str(repos[0]), *given, *extra]) == 2
    assert capsys.readouterr().err.startswith(f"error[{code}]")
    assert not (tmp_path / "new").exists()
