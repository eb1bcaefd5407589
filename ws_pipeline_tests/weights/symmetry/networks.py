"""Real networks at tiny size, their tensors as published, and their function on fixed inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers.core_model_loading import revert_weight_conversion

from ws_pipeline.zoo.modules import Cnn, Mlp

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A module with its config and inputs."""

    module: nn.Module
    config: Mapping[str, Any]
    inputs: Mapping[str, torch.Tensor]

    def names(self) -> dict[str, str]:
        """Published name of every tensor of the module."""
        state = self.module.state_dict()
        if not hasattr(self.module, "config") or isinstance(self.module, Mlp | Cnn):
            return {name: name for name in state}
        marks = {name: torch.full((1,), index) for index, name in enumerate(state)}
        written = revert_weight_conversion(self.module, marks)
        own = list(state)
        return {own[int(mark)]: name for name, mark in written.items()}

    def read(self) -> Arrays:
        state = self.module.state_dict()
        return {name: state[own].numpy().copy() for own, name in self.names().items()}

    def write(self, state: Arrays) -> None:
        own = {own: torch.from_numpy(state[name]) for own, name in self.names().items()}
        with torch.no_grad():
            # Tied tensors one by one: load_state_dict would let the last one win in silence.
            for name, tensor in self.module.state_dict().items():
                tensor.copy_(own[name])
            for name, tensor in self.module.state_dict().items():
                assert torch.equal(tensor, own[name]), name

    @torch.no_grad()
    def run(self) -> torch.Tensor:
        parameter = next(self.module.parameters())
        inputs = {
            name: value.to(parameter.dtype) if value.is_floating_point() else value
            for name, value in self.inputs.items()
        }
        output = self.module.eval()(**inputs)
        if isinstance(output, torch.Tensor):
            return output
        return output.logits if "logits" in output else output.last_hidden_state


class TorchBlock(nn.Module):
    """torchvision's BasicBlock or Bottleneck, by its tensor names."""

    def __init__(self, channels: int, sizes: tuple[int, ...], *, project: bool) -> None:
        super().__init__()
        previous = channels
        for number, size in enumerate(sizes, start=1):
            kernel = 3 if number == 2 or len(sizes) == 2 else 1
            setattr(
                self,
                f"conv{number}",
                nn.Conv2d(previous, size, kernel, padding=kernel // 2, bias=False),
            )
            setattr(self, f"bn{number}", nn.BatchNorm2d(size))
            previous = size
        self.sizes = sizes
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, previous, 1, bias=False), nn.BatchNorm2d(previous)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for number in range(1, len(self.sizes) + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            out = out.relu() if number < len(self.sizes) else out
        if self.downsample is not None:
            x = self.downsample(x)
        elif out.shape[1] != x.shape[1]:  # He's option A
            x = nn.functional.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return (out + x).relu()


class TorchResNet(nn.Module):
    def __init__(self, blocks: list[list[tuple[int, ...]]], *, project: bool = True) -> None:
        super().__init__()
        channels = 8
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for number, sizes in enumerate(blocks, start=1):
            stage = []
            for block in sizes:
                stage.append(TorchBlock(channels, block, project=project and channels != block[-1]))
                channels = block[-1]
            setattr(self, f"layer{number}", nn.Sequential(*stage))
        self.num_stages = len(blocks)
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for number in range(1, self.num_stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(x.mean(dim=(2, 3)))


def _zoo_mlp() -> Network:
    module = Mlp(input_size=16, hidden_sizes=[12, 9], num_labels=4, activation="gelu")
    return Network(
        module=module,
        config={"model_type": "mlp", "architectures": ["Mlp"]},
        inputs={"images": torch.randn(5, 1, 4, 4)},
    )


def _zoo_cnn(*, batch_norm: bool) -> Network:
    module = Cnn(
        image_size=8, channels=[6, 7, 8], hidden_size=10, num_labels=4, activation="relu",
        batch_norm=batch_norm,
    )  # fmt: skip
    return Network(
        module=module,
        config={"model_type": "cnn", "architectures": ["Cnn"]},
        inputs={"images": torch.randn(5, 1, 8, 8)},
    )


def _torch_resnet(blocks: list[list[tuple[int, ...]]], *, project: bool = True) -> Network:
    return Network(
        module=TorchResNet(blocks, project=project),
        config={"model_type": "resnet18"},
        inputs={"x": torch.randn(2, 3, 8, 8)},
    )


def _hub(name: str, inputs: Mapping[str, torch.Tensor], **values: Any) -> Network:
    kind = getattr(transformers, name)
    config = kind.config_class(**values, attn_implementation="eager")
    module = kind(config)
    stated = {**config.to_dict(), "architectures": [name]}
    return Network(module=module, config=stated, inputs=inputs)


IMAGES = {"pixel_values": (2, 3, 8, 8)}
IDS = {"input_ids": (2, 11)}
VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "image_size": 8, "patch_size": 4, "num_labels": 3,
}  # fmt: skip
BERT = {
    "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 24, "max_position_embeddings": 20, "num_labels": 3,
}  # fmt: skip
LLAMA = {
    "vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
GQA = {**LLAMA, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}
T5 = {
    "vocab_size": 30, "d_model": 16, "d_kv": 5, "d_ff": 24, "num_layers": 2, "num_heads": 3,
    "decoder_start_token_id": 0,
}  # fmt: skip
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [2, 2, 2, 2]}

HUB_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("ResNetForImageClassification", {**RESNET, "layer_type": "basic"}),
    "resnet50": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 2]},
    ),
    "vit": ("ViTForImageClassification", VIT),
    "vit_model": ("ViTModel", VIT),
    "deit": ("DeiTForImageClassification", VIT),
    "bert_mlm": ("BertForMaskedLM", BERT),
    "bert_classes": ("BertForSequenceClassification", BERT),
    "bert_tokens": ("BertForTokenClassification", BERT),
    "roberta": ("RobertaForMaskedLM", BERT),
    "roberta_classes": ("RobertaForSequenceClassification", BERT),
    "distilbert": (
        "DistilBertForMaskedLM",
        {"vocab_size": 30, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24},
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 30, "n_positions": 20, "n_embd": 16, "n_layer": 2, "n_head": 4},
    ),
    "llama": ("LlamaForCausalLM", LLAMA),
    "mistral_gqa": ("MistralForCausalLM", GQA),
    "qwen2_tied": ("Qwen2ForCausalLM", {**GQA, "tie_word_embeddings": True}),
    "qwen3_norms": ("Qwen3ForCausalLM", GQA),
    "gemma_mqa": ("GemmaForCausalLM", {**GQA, "num_key_value_heads": 1}),
    "t5": ("T5ForConditionalGeneration", T5),
    "t5_gated": ("T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
}

BASIC, BOTTLENECK = [[(8, 8), (8, 8)], [(12, 12), (12, 12)]], [[(4, 4, 16)] * 2, [(8, 8, 32)] * 2]

BUILDERS: dict[str, Callable[[], Network]] = {
    "mlp": _zoo_mlp,
    "cnn": lambda: _zoo_cnn(batch_norm=False),
    "cnn_batchnorm": lambda: _zoo_cnn(batch_norm=True),
    "torch_resnet18": lambda: _torch_resnet(BASIC),
    "torch_resnet50": lambda: _torch_resnet(BOTTLENECK),
    "torch_resnet_option_a": lambda: _torch_resnet(BASIC, project=False),
}


def build_network(kind: str, dtype: torch.dtype = torch.float64) -> Network:
    """Build a network whose tensors are all random: norms, biases and statistics too."""
    torch.manual_seed(0)
    if kind in BUILDERS:
        network = BUILDERS[kind]()
    else:
        name, values = HUB_MODELS[kind]
        if name.startswith(("ViT", "DeiT", "ResNet")):
            inputs = {"pixel_values": torch.randn(2, 3, 8, 8)}
        else:
            inputs = {"input_ids": torch.randint(3, 30, (2, 11))}
        if name.startswith("T5"):
            inputs["decoder_input_ids"] = torch.randint(3, 30, (2, 7))
        network = _hub(name, inputs, **values)
    network.module.to(dtype)
    with torch.no_grad():
        for name, tensor in network.module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn_like(tensor) * 0.3
                tensor.copy_(noise.abs() + 0.5 if "running_var" in name else tensor + noise)
    return network


KINDS = (*BUILDERS, *HUB_MODELS)
