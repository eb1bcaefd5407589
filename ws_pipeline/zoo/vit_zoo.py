"""The blueprint of a zoo of vision transformers: 10 pre-trained models, 24 fine-tunes of each.

Seven are pre-trained with labels and three without; fine-tunes differ in head, optimiser, learning
rate and seed: 10 + 240 = 250 models. ``vit-paper`` is the published recipe; ``vit-digits`` and
``vit-fashion`` are its structure at the size of a CPU, pre-trained on the lower half of the labels.

Source: https://arxiv.org/abs/2504.10231, sections 3 and 4. We differ in the contrastive
pre-training, whose pairs are two views of the SAME image, and where the paper is silent: schedule,
weight decay of fine-tunes and length of the contrastive pre-training are ours. No torch, no I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, Scalar, Size, ZooConfig

NUM_SUPERVISED = 7
NUM_CONTRASTIVE = 3
LAST_EPOCHS_KEPT = 2
"""Epochs before the last of which a checkpoint is kept, to be averaged with it."""
KEEP_EVERY = 7
"""Of so many fine-tunes one keeps them: no divisor of the grid's 24, so all factors are seen."""

_SUPERVISED: Mapping[str, Scalar] = {
    "optimizer": "adamw",
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "label_smoothing": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "random_erasing": 0.25,
}
_CONTRASTIVE: Mapping[str, Scalar] = {
    "objective": "contrastive",
    "temperature": 0.07,
    "optimizer": "adamw",
    "schedule": "cosine",
    "weight_decay": 1e-4,
}
_FINETUNE: Mapping[str, tuple[Size, ...]] = {
    "head": ("linear", "mlp"),
    "optimizer": ("adamw", "sgd"),
    "learning_rate": (3e-3, 1e-3, 1e-4),
    "schedule": ("cosine",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of the blueprint.

    Args:
        rows_per_epoch: 0 for all.
        learning_rate: Of pre-training; fine-tunes have the grid's.
    """

    dataset: str
    num_epochs: int
    batch_size: int
    rows_per_epoch: int = 0
    learning_rate: float = 1e-3


def _rows(factors: Mapping[str, Scalar], learning_rate: float) -> FactorGrid:
    row = {**factors, "learning_rate": learning_rate}
    return FactorGrid(values={name: (value,) for name, value in row.items()})


def _blueprint(
    name: str,
    description: str,
    *,
    sizes: Mapping[str, Size],
    supervised: Stage,
    contrastive: Stage,
    finetune: Stage,
    eval_rows: int = 0,
) -> ZooConfig:
    """Lay out the four populations."""
    pretrained = (
        ("supervised", supervised, _SUPERVISED, NUM_SUPERVISED),
        ("contrastive", contrastive, _CONTRASTIVE, NUM_CONTRASTIVE),
    )
    parents = tuple(
        GridConfig(
            name=f"{name}-{kind}",
            architecture="vit",
            dataset=stage.dataset,
            sizes=sizes,
            factors=_rows(factors, stage.learning_rate),
            seeds=tuple(range(count)),
            num_epochs=stage.num_epochs,
            batch_size=stage.batch_size,
            rows_per_epoch=stage.rows_per_epoch,
            eval_rows=eval_rows,
        )
        for kind, stage, factors, count in pretrained
    )
    last = finetune.num_epochs
    children = tuple(
        GridConfig(
            name=f"{parent.name}-finetuned",
            architecture="vit",
            dataset=finetune.dataset,
            factors=FactorGrid(values=_FINETUNE),
            seeds=(0, 1),
            num_epochs=last,
            batch_size=finetune.batch_size,
            rows_per_epoch=finetune.rows_per_epoch,
            eval_rows=eval_rows,
            keep_epochs=tuple(range(last - LAST_EPOCHS_KEPT, last)),
            keep_every=KEEP_EVERY,
            parent=ParentConfig(population=parent.name, new_head=True),
        )
        for parent in parents
    )
    return ZooConfig(
        name=name, owner="vit-zoo", description=description, populations=(*parents, *children)
    )


def vit_digits() -> ZooConfig:
    """250 ViTs of 18,053 to 20,650 parameters, from the digits 0 to 4 to all ten.

    0.12 CPU-seconds per model-epoch on a Zen 4 core; 638 for the zoo on two busy ones.
    """
    return _blueprint(
        "vit-digits",
        "250 ViTs: 10 pre-trained on the digits 0 to 4, 240 fine-tuned on all.",
        sizes={"width": 32, "num_layers": 2, "num_heads": 2, "mlp_size": 64, "patch_size": 2},
        supervised=Stage(dataset="digits-low", num_epochs=40, batch_size=32, learning_rate=3e-3),
        contrastive=Stage(dataset="digits-low", num_epochs=40, batch_size=64, learning_rate=3e-3),
        finetune=Stage(dataset="digits", num_epochs=16, batch_size=32),
    )


def vit_fashion() -> ZooConfig:
    """250 ViTs on Fashion-MNIST, from five kinds of clothes to ten; an epoch is 2,048 images."""
    return _blueprint(
        "vit-fashion",
        "250 ViTs: 10 pre-trained on half of Fashion-MNIST's labels, 240 fine-tuned on all.",
        sizes={"width": 32, "num_layers": 2, "num_heads": 2, "mlp_size": 64, "patch_size": 7},
        supervised=Stage(
            dataset="fashion-mnist-low",
            num_epochs=16,
            batch_size=32,
            rows_per_epoch=2_048,
            learning_rate=3e-3,
        ),
        contrastive=Stage(
            dataset="fashion-mnist-low",
            num_epochs=16,
            batch_size=64,
            rows_per_epoch=2_048,
            learning_rate=3e-3,
        ),
        finetune=Stage(dataset="fashion-mnist", num_epochs=8, batch_size=32, rows_per_epoch=2_048),
        eval_rows=1_000,
    )


def vit_paper() -> ZooConfig:
    """The published recipe: ViT-S/16, from ImageNet to CIFAR-100, as image folders of 224 pixels.

    Weeks on one GPU, and ImageNet has to fit into memory as bytes (193 GB): here for the record and
    for those who have both.
    """
    return _blueprint(
        "vit-paper",
        "250 ViT-S/16: 10 pre-trained on ImageNet, 240 fine-tuned on CIFAR-100.",
        sizes={"width": 384, "num_layers": 12, "num_heads": 6, "mlp_size": 1_536, "patch_size": 16},
        supervised=Stage(dataset="folder-imagenet-224", num_epochs=90, batch_size=256),
        contrastive=Stage(dataset="folder-imagenet-224", num_epochs=90, batch_size=256),
        finetune=Stage(dataset="folder-cifar100-224", num_epochs=50, batch_size=256),
    )
