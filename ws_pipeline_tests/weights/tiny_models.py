"""Real networks of torch and transformers at tiny size, saved as their libraries save them."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)


def _save_module(module: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _save_pretrained(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)


def build_mlp(folder: Path) -> None:
    _save_module(
        nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3)), folder
    )


def build_cnn(folder: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.ConvTranspose2d(6, 3, 2),
        nn.Flatten(),
        nn.Linear(27, 2),
    )
    with torch.no_grad():
        net(torch.randn(4, 1, 6, 6))
    _save_module(net, folder)


def build_lstm(folder: Path) -> None:
    _save_module(nn.LSTM(3, 4, num_layers=2, bidirectional=True), folder)


def build_vit(folder: Path) -> None:
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    _save_pretrained(ViTForImageClassification(config), folder)


def build_bert(folder: Path) -> None:
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
    )
    _save_pretrained(BertForMaskedLM(config), folder)


def build_gpt2(folder: Path) -> None:
    config = GPT2Config(vocab_size=30, n_positions=20, n_embd=16, n_layer=2, n_head=2)
    _save_pretrained(GPT2LMHeadModel(config), folder)


def build_llama_bf16(folder: Path) -> None:
    config = LlamaConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    _save_pretrained(LlamaForCausalLM(config).to(torch.bfloat16), folder)


def build_t5_shards(folder: Path) -> None:
    config = T5Config(
        vocab_size=30,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).half().save_pretrained(folder, max_shard_size="5KB")


BUILDERS: dict[str, Callable[[Path], None]] = {
    "mlp": build_mlp,
    "cnn": build_cnn,
    "lstm": build_lstm,
    "vit": build_vit,
    "bert": build_bert,
    "gpt2": build_gpt2,
    "llama_bf16": build_llama_bf16,
    "t5_shards": build_t5_shards,
}


def build(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    BUILDERS[kind](folder)
    return folder
