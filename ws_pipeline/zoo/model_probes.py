"""Run a sample of a zoo's models: calibration, robustness, features. Reads repos; torch.

What the recorded predictions cannot say. Models are loaded into the class that their config.json
names, one per shape, and see the same few hundred test rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from ws_pipeline.zoo.architectures import ARCHITECTURES, load_model, published_names, run_module
from ws_pipeline.zoo.behaviour import calibration_error
from ws_pipeline.zoo.held_out import HeldOut

MAX_PROBED_MODELS = 24
"""Most models of one data set that are run. A tiny ViT takes 0.1 s, loading included."""
MAX_PROBED_ROWS = 256
NOISES = (0.1, 0.3)
"""Standard deviations of the normal noise on images in [0, 1], which are clipped again."""
SHIFTS = (1, 2)
"""Pixels by which images move right and down, zeros coming in."""
SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What running one model gave.

    Attributes:
        metrics: ``calibration_error``; of images also ``accuracy_drop_noise_0.1`` and the like:
            accuracy on the rows as they are, less that on the changed ones.
        features: What enters the output layer ``(rows, width)``, all places of a row averaged.
    """

    metrics: Mapping[str, float]
    features: NDArray[np.float64]


def change_images(images: Tensor) -> dict[str, Tensor]:
    """Make the changed copies of images ``(rows, channels, height, width)``, always the same."""
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(images.shape, generator=generator)
    changed = {f"noise_{std}": (images + std * noise).clamp(0, 1) for std in NOISES}
    for pixels in SHIFTS:
        moved = torch.zeros_like(images)
        moved[..., pixels:, pixels:] = images[..., :-pixels, :-pixels]
        changed[f"shift_{pixels}"] = moved
    return changed


@torch.no_grad()
def probe_models(repos: Sequence[Path], architecture: str, rows: HeldOut) -> list[Probe]:
    """Run models on the first test rows.

    Args:
        repos: Of one architecture and data set.
        architecture: Its name.
        rows: Test rows.
    """
    inputs, labels = rows.inputs[:MAX_PROBED_ROWS], rows.labels[:MAX_PROBED_ROWS]
    changed = change_images(inputs) if ARCHITECTURES[architecture].inputs == "images" else {}
    modules: dict[str, nn.Module] = {}
    return [_probe(_load(repo, modules), architecture, inputs, labels, changed) for repo in repos]


def _load(repo: Path, modules: dict[str, nn.Module]) -> nn.Module:
    """Load a repo's weights into the module of its config, which is made once."""
    config = (repo / "config.json").read_text(encoding="utf-8")
    if config not in modules:
        modules[config] = load_model(repo)
        return modules[config]
    module = modules[config]
    weights = load_file(repo / "model.safetensors")
    own = {name: weights[published] for name, published in published_names(module).items()}
    # Tied tensors and what is not saved have no name of their own.
    module.load_state_dict(own, strict=False)
    return module


def _probe(
    module: nn.Module, architecture: str, inputs: Tensor, labels: Tensor, changed: dict[str, Tensor]
) -> Probe:
    seen: list[Tensor] = []
    hook = _find_head(module).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits = run_module(architecture, module.eval(), inputs)
    hook.remove()
    flat = logits.flatten(0, -2)
    probabilities = torch.softmax(flat.double(), dim=-1).numpy()
    metrics = {"calibration_error": calibration_error(probabilities, labels.flatten().numpy())}
    clean = _accuracy(logits, labels)
    for name, images in changed.items():
        accuracy = _accuracy(run_module(architecture, module, images), labels)
        metrics[f"accuracy_drop_{name}"] = clean - accuracy
    features = seen[-1].double()
    while features.ndim > 2:
        features = features.mean(dim=1)
    return Probe(metrics=metrics, features=features.numpy())


def _find_head(module: nn.Module) -> nn.Module:
    """Return the last dense layer, which gives the logits in every architecture here."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=-1) == labels).double().mean())
