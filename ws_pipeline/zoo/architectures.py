"""The architectures of the zoos: how each is called, described and named in a file.

Not here: how their modules are put together (``builders``). The transformers use eager attention,
which takes any additive mask: that keeps transformers' own mask making (it looks at the data, hence
is not for vmap) out of the forward pass. No I/O but :func:`load_model`.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.zoo.builders import (
    build_bert,
    build_cnn,
    build_gpt2,
    build_mlp,
    build_resnet18,
    build_vit,
)
from ws_pipeline.zoo.config import Size
from ws_pipeline.zoo.datasets.dataset import Dataset, TextDataset
from ws_pipeline.zoo.initialization import initialize_weights
from ws_pipeline.zoo.modules import Cnn, Mlp, ResNet18

Inputs = Literal["images", "windows", "text"]

MLP_HEAD_CLASS = "ViTMlpHeadForImageClassification"
"""In config.json: no class of transformers' own, see ``vit_heads``."""

_INITIALISATION_LOCK = threading.Lock()
"""Modules draw their initial weights from torch's global generator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One architecture.

    Args:
        inputs: What it learns from: labelled images, labelled windows of text, or running text, of
            which it predicts the next character.
        build: Make a module from sizes and the data set's shape.
        arguments: Name the inputs ``(batch, ...)`` as the module's forward wants them.
    """

    name: str
    inputs: Inputs
    library: str
    pipeline_tag: str
    build: Callable[[Mapping[str, Any], Any], nn.Module]
    arguments: Callable[[Tensor], dict[str, Any]]


@cache
def _causal_mask(context: int) -> Tensor:
    """Additive mask ``(1, 1, context, context)``: 0 to the past and self, lowest to the future."""
    lowest = torch.full((context, context), torch.finfo(torch.float32).min)
    return lowest.triu(1)[None, None]


def _gpt2_arguments(inputs: Tensor) -> dict[str, Any]:
    # With a ready 4-d mask transformers builds none itself: its own way looks at the data.
    mask = _causal_mask(inputs.shape[-1]).to(inputs.device)
    return {"input_ids": inputs, "attention_mask": mask, "use_cache": False}


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="mlp",
            inputs="images",
            library="pytorch",
            pipeline_tag="image-classification",
            build=build_mlp,
            arguments=lambda inputs: {"images": inputs},
        ),
        Architecture(
            name="cnn",
            inputs="images",
            library="pytorch",
            pipeline_tag="image-classification",
            build=build_cnn,
            arguments=lambda inputs: {"images": inputs},
        ),
        Architecture(
            name="resnet18",
            inputs="images",
            library="pytorch",
            pipeline_tag="image-classification",
            build=build_resnet18,
            arguments=lambda inputs: {"images": inputs},
        ),
        Architecture(
            name="vit",
            inputs="images",
            library="transformers",
            pipeline_tag="image-classification",
            build=build_vit,
            arguments=lambda inputs: {"pixel_values": inputs},
        ),
        Architecture(
            name="bert",
            inputs="windows",
            library="transformers",
            pipeline_tag="text-classification",
            build=build_bert,
            arguments=lambda inputs: {"input_ids": inputs},
        ),
        Architecture(
            name="gpt2",
            inputs="text",
            library="transformers",
            pipeline_tag="text-generation",
            build=build_gpt2,
            arguments=_gpt2_arguments,
        ),
    )
}


def inputs_of(dataset: Dataset) -> Inputs:
    """Tell what a data set consists of."""
    if isinstance(dataset, TextDataset):
        return "text"
    return "windows" if dataset.is_text else "images"


def build_module(
    architecture: str,
    sizes: Mapping[str, Size],
    dataset: Dataset,
    *,
    seed: int,
    initialization: str = "default",
) -> nn.Module:
    """Build one module, its weights drawn from ``seed`` alone by ``initialization``.

    Raises:
        ConfigError: When the architecture and the data set do not go together.
    """
    entry = ARCHITECTURES[architecture]
    given = inputs_of(dataset)
    if entry.inputs != given:
        raise ConfigError(
            f"Architecture {architecture!r} learns from {entry.inputs}, data set {dataset.name!r} "
            f"has {given}."
        )
    with _INITIALISATION_LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = entry.build(sizes, dataset).train()
        initialize_weights(module, initialization)
        return module


def run_module(architecture: str, module: nn.Module, inputs: Tensor) -> Tensor:
    """Call a module and return its logits ``(batch, ..., classes)``."""
    output = module(**ARCHITECTURES[architecture].arguments(inputs))
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def describe_module(module: nn.Module, architecture: str) -> str:
    """Write the module's config.json: transformers' own, or all sizes of ours."""
    if isinstance(module, Mlp | Cnn | ResNet18):
        shape: dict[str, Any] = {
            "architectures": [type(module).__name__],
            "model_type": architecture,
            "dtype": "float32",
            **module.config,
        }
        return json.dumps(shape, indent=2, sort_keys=True) + "\n"
    config = cast("Any", module).config
    config.architectures = [type(module).__name__]
    config.dtype = torch.float32
    return cast("str", config.to_json_string())


def published_names(module: nn.Module) -> dict[str, str]:
    """Map the module's tensor names to those in the file that ``save_pretrained`` would write.

    They differ where transformers keeps a hub-wide older naming (ViT). Tied tensors and buffers
    that are not saved are absent on both sides.
    """
    persistent = module.state_dict()
    names = [name for name, _ in module.named_parameters()]
    names += [name for name, _ in module.named_buffers() if name in persistent]
    if isinstance(module, Mlp | Cnn | ResNet18):
        return {name: name for name in names}
    from transformers.core_model_loading import revert_weight_conversion

    marks = {name: torch.full((1,), index) for index, name in enumerate(names)}
    written = revert_weight_conversion(cast("Any", module), marks)
    return {names[int(mark)]: name for name, mark in written.items()}


def load_model(folder: Path) -> nn.Module:
    """Load a repo of a zoo with the class that its config.json names.

    Raises:
        MissingInputError: When the folder is not a repo of one of our architectures.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise MissingInputError(f"{folder} must hold a config.json, it does not.")
    config = json.loads(path.read_text(encoding="utf-8"))
    classes: dict[str, type[nn.Module]] = {"Mlp": Mlp, "Cnn": Cnn, "ResNet18": ResNet18}
    name = config["architectures"][0]
    if name not in classes:
        return _load_transformer(name, folder)
    for key in ("architectures", "model_type", "dtype"):
        config.pop(key)
    module = classes[name](**config)
    module.load_state_dict(load_file(folder / "model.safetensors"))
    return module.eval()


def _load_transformer(name: str, folder: Path) -> nn.Module:
    """Load a model of transformers, without its bar: a zoo has hundreds of models."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if name == MLP_HEAD_CLASS:
        from ws_pipeline.zoo.vit_heads import ViTMlpHeadForImageClassification

        return ViTMlpHeadForImageClassification.from_pretrained(folder)
    return cast("nn.Module", getattr(transformers, name).from_pretrained(folder))
