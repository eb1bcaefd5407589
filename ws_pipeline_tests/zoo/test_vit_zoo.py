"""The blueprint has its 250 models, and what comes of it is read with transformers alone."""

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, ViTModel

from ws_pipeline.weights.symmetry.permutation import draw_permutation, permute_state
from ws_pipeline.zoo.architectures import load_model, published_names
from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.datasets.digits import load_digits
from ws_pipeline.zoo.grid import plan_zoo
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.parents import ParentSearch, recover_parents
from ws_pipeline.zoo.train import train_zoo
from ws_pipeline.zoo.training import train_stack
from ws_pipeline.zoo.weights import read_arrays, read_symmetry
from ws_pipeline_tests.zoo.conftest import small_vit_zoo
from ws_pipeline_tests.zoo.test_training import TOLERANCES, largest_difference, make_plans


@pytest.mark.parametrize("name", ["vit-digits", "vit-fashion", "vit-paper"])
def test_the_blueprint_is_ten_parents_and_24_fine_tunes_of_each(name: str) -> None:
    plans = [plan for population in plan_zoo(zoo_config(name)).values() for plan in population]
    parents = [plan for plan in plans if plan.parent is None]
    children = [plan for plan in plans if plan.parent is not None]
    assert (len(plans), len(parents), len(children)) == (250, 10, 240)
    assert Counter(plan.factors["objective"] for plan in parents) == {
        "supervised": 7,
        "contrastive": 3,
    }
    assert {plan.factors["temperature"] for plan in parents} == {0.07}
    assert all(plan.dataset != child.dataset for plan in parents for child in children)
    for parent in parents:
        own = [plan for plan in children if plan.parent is parent]
        grid = Counter(
            (plan.sizes["head"], plan.factors["optimizer"], plan.factors["learning_rate"])
            for plan in own
        )
        assert len(grid) == 12
        assert set(grid.values()) == {2}
        assert all(plan.new_head for plan in own)
    kept = [plan for plan in children if plan.keep_epochs]
    assert {plan.factors["optimizer"] for plan in kept} == {"adamw", "sgd"}
    assert {plan.sizes["head"] for plan in kept} == {"linear", "mlp"}


def test_models_with_a_hidden_layer_in_the_head_equal_themselves_alone() -> None:
    plans = [
        replace(plan, sizes={**plan.sizes, "head": "mlp"}, rows_per_epoch=440)
        for plan in make_plans("vit")[1:3]
    ]
    dataset = load_digits("digits")
    together = train_stack(plans, dataset, dtype=torch.float64)
    (alone,) = train_stack(plans[1:], dataset, dtype=torch.float64)
    assert "vit.pooler.dense.weight" in alone.checkpoints[-1].state
    assert largest_difference(together[1], alone) < TOLERANCES["vit"]


def test_the_papers_recipe_names_all_of_its_regularisation() -> None:
    supervised, contrastive, finetuned, _ = plan_zoo(zoo_config("vit-paper")).values()
    assert supervised[0].sizes["width"] == 384
    assert (supervised[0].num_epochs, supervised[0].batch_size) == (90, 256)
    expected = {
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "label_smoothing": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "random_erasing": 0.25,
    }
    assert expected.items() <= supervised[0].factors.items()
    assert contrastive[0].factors["mixup"] == 0.0
    assert finetuned[0].num_epochs == 50


def test_transformers_alone_reads_every_repo_and_reproduces_its_accuracy(vit_folder: Path) -> None:
    heads = []
    rows = read_index(vit_folder).select("name", "dataset", "accuracy", "factors")
    for name, dataset_name, accuracy, factors in rows.iter_rows():
        folder = vit_folder / "repos" / name
        dataset = load_digits(dataset_name)
        images, labels = map(torch.from_numpy, (dataset.test_inputs, dataset.test_labels))
        has_mlp = '"head": "mlp"' in factors
        heads.append(has_mlp)
        with torch.no_grad():
            if has_mlp:
                (code,) = re.findall(
                    r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL
                )
                scope = {
                    "ViTModel": ViTModel,
                    "load_file": load_file,
                    "folder": folder,
                    "images": images,
                }
                exec(code, scope)
                logits = scope["logits"]
            else:
                logits = AutoModelForImageClassification.from_pretrained(folder)(images).logits
            own = load_model(folder)(images).logits
        assert float((logits.argmax(-1) == labels).double().mean()) == pytest.approx(
            accuracy, abs=1e-6
        )
        torch.testing.assert_close(own, logits)
    assert len(heads) == 10 + 2 * 2
    assert 4 <= sum(heads) < len(heads)


def test_the_class_without_a_hidden_layer_refuses_the_file(vit_folder: Path) -> None:
    rows = read_index(vit_folder).filter(pl.col("factors").str.contains('"head": "mlp"'))
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForImageClassification.from_pretrained(vit_folder / "repos" / rows["name"][0])


def test_pre_training_without_labels_is_published_as_a_classifier(vit_folder: Path) -> None:
    (row,) = (
        read_index(vit_folder).filter(population="vit-digits-contrastive").iter_rows(named=True)
    )
    names = load_file(vit_folder / "repos" / row["name"] / "model.safetensors")
    assert [name for name in names if not name.startswith("vit.")] == [
        "classifier.bias",
        "classifier.weight",
    ]
    assert row["accuracy"] > 0.5  # of five digits
    assert row["loss"] < 1.4
    assert row["train_losses"][-1] < row["train_losses"][0] - 0.1
    card = (vit_folder / "repos" / row["name"] / "README.md").read_text()
    assert "two views of the same image" in card


def test_every_fine_tune_names_its_parent_whatever_its_head(vit_folder: Path) -> None:
    table = recover_parents(vit_folder, "vit", ParentSearch(permute=True, align=True))
    assert table.height == 8
    assert set(table["num_candidates"]) == {2}
    assert (table["rank"] == 1).all()


def test_a_permuted_vit_with_a_hidden_layer_in_its_head_does_the_same(vit_folder: Path) -> None:
    rows = read_index(vit_folder).filter(pl.col("factors").str.contains('"head": "mlp"'))
    folder = vit_folder / "repos" / rows["name"][0]
    weights = read_arrays(folder)
    symmetry = read_symmetry(folder, weights)
    assert "stream" in {group.name for group in symmetry.groups}
    shapes = {name: array.shape for name, array in weights.items()}
    generator = np.random.default_rng(0)
    moved = permute_state(weights, draw_permutation(symmetry, shapes, generator=generator))
    module = load_model(folder)
    images = torch.from_numpy(load_digits("digits").test_inputs)
    with torch.no_grad():
        before = module(images).logits
        own = {name: torch.from_numpy(moved[new]) for name, new in published_names(module).items()}
        module.load_state_dict(own)
        after = module(images).logits
    assert not np.array_equal(moved["vit.pooler.dense.weight"], weights["vit.pooler.dense.weight"])
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def test_a_killed_run_is_taken_up_and_ends_in_the_same_files(
    vit_folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from ws_pipeline.zoo.train import train_zoo; "
        "from ws_pipeline_tests.zoo.conftest import small_vit_zoo; "
        "train_zoo(small_vit_zoo(), Path(sys.argv[1]), num_workers=1)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not list(tmp_path.glob("populations/*.parquet")):
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (tmp_path / "summary.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("populations/*.parquet")}
    (next((tmp_path / "repos").iterdir()) / ".write-left-by-the-killed").touch()
    train_zoo(small_vit_zoo(), tmp_path, show_progress=False)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for kind in ("repos", "predictions"):
        before, after = (
            {
                str(path.relative_to(folder)): path.read_bytes()
                for path in (folder / kind).rglob("*")
                if path.is_file()
            }
            for folder in (vit_folder, tmp_path)
        )
        assert after == before
