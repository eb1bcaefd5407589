"""Write trained models as hub repos: weights, config, card, and their rows of the index."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor, nn

from ws_pipeline.zoo.architectures import (
    ARCHITECTURES,
    build_module,
    describe_module,
    published_names,
)
from ws_pipeline.zoo.cards import CardFacts, generating_factors, write_card
from ws_pipeline.zoo.config import ZooConfig
from ws_pipeline.zoo.datasets.dataset import Dataset
from ws_pipeline.zoo.grid import ModelPlan
from ws_pipeline.zoo.index import REPOS_FOLDER, write_if_changed
from ws_pipeline.zoo.stack import State
from ws_pipeline.zoo.training import Checkpoint, TrainedModel


def write_repo(folder: Path, state: Mapping[str, Tensor], *, config: str, card: str) -> int:
    """Write one repo folder.

    Args:
        folder: The repo's folder.
        state: Tensors by their published names.
        config: Text of config.json.
        card: Text of README.md.

    Returns:
        Size of model.safetensors in bytes.
    """
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    weights = save(tensors, metadata={"format": "pt"})  # transformers wants the format named
    folder.mkdir(parents=True, exist_ok=True)
    write_if_changed(folder / "model.safetensors", weights)
    write_if_changed(folder / "config.json", config.encode())
    write_if_changed(folder / "README.md", card.encode())
    return len(weights)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read a repo's tensors by their published names."""
    return load_file(folder / "model.safetensors")


def read_state(plan: ModelPlan, dataset: Dataset, repo: Path) -> State:
    """Read a published model back under its module's own tensor names."""
    module = build_module(plan.architecture, plan.sizes, dataset, seed=0)
    published = read_weights(repo)
    return {own: published[name] for own, name in published_names(module).items()}


class RepoWriter:
    """Writes the models of one stack: they share names of tensors and config.json."""

    def __init__(self, config: ZooConfig, plan: ModelPlan, dataset: Dataset, folder: Path) -> None:
        self.zoo = config
        self.folder = folder / REPOS_FOLDER
        self.entry = ARCHITECTURES[plan.architecture]
        module: nn.Module = build_module(plan.architecture, plan.sizes, dataset, seed=0)
        self.names = published_names(module)
        self.config = describe_module(module, plan.architecture)
        self.num_params = sum(parameter.numel() for parameter in module.parameters())

    def write_model(
        self, model: TrainedModel, predictions: dict[str, Tensor]
    ) -> list[dict[str, object]]:
        """Write one model's checkpoints, each descending from the one before."""
        plan = model.plan
        base = plan.parent.name if plan.parent is not None else ""
        rows = []
        for checkpoint in model.checkpoints:
            is_final = checkpoint.epoch == plan.num_epochs
            name = plan.name if is_final else f"{plan.name}-epoch{checkpoint.epoch}"
            num_bytes = self._write_checkpoint(plan, checkpoint, name, base)
            predictions[name] = checkpoint.predictions
            rows.append(
                {
                    **self._row(model, name, checkpoint.epoch, base),
                    **checkpoint.metrics,
                    "is_final": is_final,
                    "status": "trained",
                    "num_bytes": num_bytes,
                }
            )
            base = name
        if model.diverged_epoch or not model.checkpoints:
            status = "diverged" if model.diverged_epoch else "parent_diverged"
            row = self._row(model, plan.name, model.diverged_epoch, base)
            rows.append({**row, "is_final": True, "status": status, "num_bytes": 0})
        return rows

    def _write_checkpoint(
        self, plan: ModelPlan, checkpoint: Checkpoint, name: str, base_model: str
    ) -> int:
        facts = CardFacts(
            repo=name,
            zoo=self.zoo.name,
            owner=self.zoo.owner,
            licence=self.zoo.licence,
            library=self.entry.library,
            pipeline_tag=self.entry.pipeline_tag,
            base_model=base_model,
            epoch=checkpoint.epoch,
            num_params=self.num_params,
            metrics=checkpoint.metrics,
        )
        state = {self.names[own]: tensor for own, tensor in checkpoint.state.items()}
        card = write_card(plan, facts)
        return write_repo(self.folder / name, state, config=self.config, card=card)

    def _row(
        self, model: TrainedModel, name: str, epoch: int, base_model: str
    ) -> dict[str, object]:
        plan = model.plan
        return {
            "name": name,
            "owner": self.zoo.owner,
            "model_id": plan.model_id,
            "population": plan.population,
            "family": plan.architecture,
            "dataset": plan.dataset,
            "stage": "pretrain" if plan.parent is None else "finetune",
            "epoch": epoch,
            "base_model": base_model,
            "root": plan.root.name,
            "diverged_epoch": model.diverged_epoch,
            "num_params": self.num_params,
            "factors": json.dumps(generating_factors(plan), sort_keys=True),
            "train_losses": model.train_losses[:epoch],
            "val_accuracies": model.val_accuracies[:epoch],
        }
