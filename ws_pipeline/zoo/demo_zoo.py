"""The demo's zoo: five families of models that train in a minute on two cores. No torch, no I/O."""

from collections.abc import Mapping

from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, Size, ZooConfig

_REGULARIZATION: Mapping[str, tuple[Size, ...]] = {
    "weight_decay": (0.0, 0.1),
    "train_fraction": (0.05, 0.2, 1.0),
    "label_noise": (0.0, 0.2),
}


def demo_zoo() -> ZooConfig:
    """Five families that differ in everything, good models and bad ones, with their descendants.

    Learning rates, training subsets and label noise are chosen so that accuracies and
    generalisation gaps spread within each family.
    """
    return ZooConfig(
        name="demo",
        description="MLPs, CNNs, ViTs, BERTs and GPT-2s of 3 k to 21 k parameters.",
        # The longest first, so that two workers end together.
        populations=(*_demo_berts(), *_demo_gpt2s(), *_demo_vits(), *_demo_cnns(), *_demo_mlps()),
    )


def _demo_mlps() -> tuple[GridConfig, ...]:
    pretrained = GridConfig(
        name="mlp-digits",
        architecture="mlp",
        dataset="digits",
        factors=FactorGrid(
            kind="sampled",
            num_samples=48,
            values={
                "hidden_sizes": ((32, 32), (48,)),
                "activation": ("relu", "tanh"),
                "optimizer": ("adamw", "sgd"),
                "learning_rate": (1e-3, 3e-3, 1e-2, 3e-2),
                **_REGULARIZATION,
            },
        ),
        num_epochs=8,
        keep_epochs=(1, 3),
        keep_every=8,
    )
    finetuned = GridConfig(
        name="mlp-digits-shifted",
        architecture="mlp",
        dataset="digits-shifted",
        factors=FactorGrid(values={"learning_rate": (1e-3, 1e-2)}),
        num_epochs=3,
        parent=ParentConfig(population="mlp-digits", num_parents=10, per_parent=1),
    )
    return pretrained, finetuned


def _demo_cnns() -> tuple[GridConfig, ...]:
    values = {"learning_rate": (3e-4, 1e-3, 3e-3, 1e-2), **_REGULARIZATION}
    normalised = GridConfig(
        name="cnn-digits",
        architecture="cnn",
        dataset="digits",
        factors=FactorGrid(kind="sampled", num_samples=36, values=values),
        num_epochs=5,
        keep_epochs=(1, 2),
        keep_every=7,
    )
    plain = GridConfig(
        name="cnn-digits-plain",
        architecture="cnn",
        dataset="digits",
        sizes={"batch_norm": False},
        factors=FactorGrid(kind="sampled", num_samples=12, values=values, seed=1),
        num_epochs=5,
    )
    finetuned = GridConfig(
        name="cnn-digits-noisy",
        architecture="cnn",
        dataset="digits-noisy",
        factors=FactorGrid(values={"learning_rate": (1e-3, 1e-2)}),
        num_epochs=2,
        parent=ParentConfig(population="cnn-digits", num_parents=8, per_parent=1),
    )
    return normalised, plain, finetuned


def _demo_vits() -> tuple[GridConfig, ...]:
    pretrained = GridConfig(
        name="vit-digits",
        architecture="vit",
        dataset="digits",
        factors=FactorGrid(
            kind="sampled",
            num_samples=18,
            values={
                "learning_rate": (3e-4, 1e-3, 2e-3, 4e-3),
                **_REGULARIZATION,
            },
        ),
        num_epochs=6,
        keep_epochs=(2, 4),
        keep_every=4,
    )
    shifted = GridConfig(
        name="vit-digits-shifted",
        architecture="vit",
        dataset="digits-shifted",
        factors=FactorGrid(values={"learning_rate": (5e-4, 2e-3)}),
        num_epochs=2,
        parent=ParentConfig(population="vit-digits", num_parents=6, per_parent=1),
    )
    low = GridConfig(
        name="vit-digits-low",
        architecture="vit",
        dataset="digits-low",
        factors=FactorGrid(values={"learning_rate": (5e-4, 2e-3)}),
        num_epochs=3,
        parent=ParentConfig(population="vit-digits", num_parents=6, per_parent=1, new_head=True),
    )
    return pretrained, shifted, low


def _demo_berts() -> tuple[GridConfig, ...]:
    pretrained = GridConfig(
        name="bert-kinds",
        architecture="bert",
        dataset="kinds",
        batch_size=16,
        factors=FactorGrid(
            kind="sampled",
            num_samples=18,
            values={
                "learning_rate": (3e-4, 1e-3, 2e-3, 4e-3),
                **_REGULARIZATION,
            },
        ),
        num_epochs=4,
        keep_epochs=(1, 2),
        keep_every=4,
    )
    finetuned = GridConfig(
        name="bert-topics",
        architecture="bert",
        dataset="topics",
        batch_size=16,
        factors=FactorGrid(values={"learning_rate": (5e-4, 2e-3)}),
        num_epochs=2,
        parent=ParentConfig(population="bert-kinds", num_parents=10, per_parent=1, new_head=True),
    )
    return pretrained, finetuned


def _demo_gpt2s() -> tuple[GridConfig, ...]:
    pretrained = GridConfig(
        name="gpt2-text",
        architecture="gpt2",
        dataset="text",
        batch_size=16,
        factors=FactorGrid(
            kind="sampled",
            num_samples=18,
            values={
                "learning_rate": (5e-4, 1.5e-3, 4e-3, 1e-2),
                "weight_decay": (0.0, 0.1),
                "train_fraction": (0.005, 0.03, 1.0),
                "label_noise": (0.0, 0.2),
            },
        ),
        num_epochs=4,
        keep_epochs=(1, 2),
        keep_every=4,
    )
    strings, collections = (
        GridConfig(
            name=f"gpt2-{dataset}",
            architecture="gpt2",
            dataset=dataset,
            batch_size=16,
            factors=FactorGrid(values={"learning_rate": (1e-3, 4e-3)}),
            num_epochs=2,
            parent=ParentConfig(population="gpt2-text", num_parents=5, per_parent=1),
        )
        for dataset in ("text-strings", "text-collections")
    )
    return pretrained, strings, collections
