"""The architectures of the zoos: how each is built, called, described and named in a file.

The transformers are transformers' own classes with eager attention and no dropout, so their repos
load with ``from_pretrained``. Eager attention takes any additive mask, which keeps transformers'
mask making (data-dependent, hence not for vmap) out of the forward pass. No I/O but
:func:`load_model`.
"""

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.zoo.config import Size
from ws_pipeline.zoo.datasets import PAD_ID, Dataset, LabelledDataset, TextDataset
from ws_pipeline.zoo.modules import Cnn, Mlp

Inputs = Literal["images", "windows", "text"]

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
        head: Prefix of the output layer's tensors, which a fine-tune may start afresh; "" where
            there is no output layer of its own.
    """

    name: str
    inputs: Inputs
    library: str
    pipeline_tag: str
    build: Callable[[Mapping[str, Any], Any], nn.Module]
    arguments: Callable[[Tensor], dict[str, Any]]
    head: str


def _build_mlp(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    input_size = dataset.train_inputs.shape[-1] ** 2
    return Mlp(input_size=input_size, num_labels=dataset.num_labels, **sizes)


def _build_cnn(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    image_size = dataset.train_inputs.shape[-1]
    return Cnn(image_size=image_size, num_labels=dataset.num_labels, **sizes)


def _initializer_range(width: int) -> float:
    """Standard deviation of initial weights.

    The classes' default of 0.02 is made for a width of 768; a tiny model that starts so small
    spends its whole training on a plateau.
    """
    return round(0.5 / math.sqrt(width), 4)


def _build_vit(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = cast("Any", ViTConfig)(
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=sizes["mlp_size"],
        patch_size=sizes["patch_size"],
        image_size=dataset.train_inputs.shape[-1],
        num_channels=1,
        num_labels=dataset.num_labels,
        initializer_range=_initializer_range(sizes["width"]),
        attn_implementation="eager",
    )
    return cast("nn.Module", ViTForImageClassification(config))


def _build_bert(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = cast("Any", BertConfig)(
        vocab_size=dataset.vocab_size,
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=sizes["mlp_size"],
        max_position_embeddings=sizes["context"],
        num_labels=dataset.num_labels,
        pad_token_id=PAD_ID,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=_initializer_range(sizes["width"]),
        attn_implementation="eager",
    )
    return cast("nn.Module", BertForSequenceClassification(config))


def _build_gpt2(sizes: Mapping[str, Any], dataset: TextDataset) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = cast("Any", GPT2Config)(
        vocab_size=dataset.vocab_size,
        n_embd=sizes["width"],
        n_layer=sizes["num_layers"],
        n_head=sizes["num_heads"],
        n_inner=sizes["mlp_size"],
        n_positions=sizes["context"],
        activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one kernel
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=PAD_ID,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=_initializer_range(sizes["width"]),
        attn_implementation="eager",
    )
    return cast("nn.Module", GPT2LMHeadModel(config))


@cache
def _causal_mask(context: int) -> Tensor:
    """Additive mask ``(1, 1, context, context)``: 0 to the past and self, lowest to the future."""
    lowest = torch.full((context, context), torch.finfo(torch.float32).min)
    return lowest.triu(1)[None, None]


def _gpt2_arguments(inputs: Tensor) -> dict[str, Any]:
    # With a ready 4-d mask transformers builds none itself: its own way looks at the data.
    mask = _causal_mask(inputs.shape[-1])
    return {"input_ids": inputs, "attention_mask": mask, "use_cache": False}


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="mlp",
            inputs="images",
            library="pytorch",
            pipeline_tag="image-classification",
            build=_build_mlp,
            arguments=lambda inputs: {"images": inputs},
            head="layers.-1.",
        ),
        Architecture(
            name="cnn",
            inputs="images",
            library="pytorch",
            pipeline_tag="image-classification",
            build=_build_cnn,
            arguments=lambda inputs: {"images": inputs},
            head="fc2.",
        ),
        Architecture(
            name="vit",
            inputs="images",
            library="transformers",
            pipeline_tag="image-classification",
            build=_build_vit,
            arguments=lambda inputs: {"pixel_values": inputs},
            head="classifier.",
        ),
        Architecture(
            name="bert",
            inputs="windows",
            library="transformers",
            pipeline_tag="text-classification",
            build=_build_bert,
            arguments=lambda inputs: {"input_ids": inputs},
            head="classifier.",
        ),
        Architecture(
            name="gpt2",
            inputs="text",
            library="transformers",
            pipeline_tag="text-generation",
            build=_build_gpt2,
            arguments=_gpt2_arguments,
            head="",  # tied to the embedding,
        ),
    )
}


def inputs_of(dataset: Dataset) -> Inputs:
    """Tell what a data set consists of."""
    if isinstance(dataset, TextDataset):
        return "text"
    return "windows" if dataset.is_text else "images"


def build_module(
    architecture: str, sizes: Mapping[str, Size], dataset: Dataset, *, seed: int
) -> nn.Module:
    """Build one module with its class's own initialisation, drawn from ``seed`` alone.

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
        return entry.build(sizes, dataset).train()


def head_names(architecture: str, names: Sequence[str]) -> list[str]:
    """List the tensors of the output layer among ``names``."""
    prefix = ARCHITECTURES[architecture].head
    if not prefix:
        raise ConfigError(f"{architecture!r} has no output layer of its own to start afresh.")
    if "-1" in prefix:  # the last of a numbered list
        stem = prefix.partition("-1")[0]
        last = max(int(name.removeprefix(stem).partition(".")[0]) for name in names)
        prefix = f"{stem}{last}."
    return [name for name in names if name.startswith(prefix)]


def run_module(architecture: str, module: nn.Module, inputs: Tensor) -> Tensor:
    """Call a module and return its logits ``(batch, ..., classes)``."""
    output = module(**ARCHITECTURES[architecture].arguments(inputs))
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def describe_module(module: nn.Module, architecture: str) -> str:
    """Write the module's config.json: transformers' own, or all sizes of ours."""
    if isinstance(module, Mlp | Cnn):
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
    if isinstance(module, Mlp | Cnn):
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
    classes: dict[str, type[nn.Module]] = {"Mlp": Mlp, "Cnn": Cnn}
    name = config["architectures"][0]
    if name not in classes:
        import transformers

        return cast("nn.Module", getattr(transformers, name).from_pretrained(folder))
    for key in ("architectures", "model_type", "dtype"):
        config.pop(key)
    module = classes[name](**config)
    module.load_state_dict(load_file(folder / "model.safetensors"))
    return module.eval()
