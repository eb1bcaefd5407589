"""Architectures of transformers at reduced width, from their configs alone. Not a test module."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

SMALL: dict[str, Any] = {
    "vocab_size": 99, "hidden_size": 32, "n_embd": 32, "d_model": 32, "dim": 32, "emb_dim": 32,
    "embedding_size": 32, "word_embed_proj_dim": 32, "projection_dim": 16, "embed_dim": 32,
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "n_layers": 2, "encoder_layers": 2,
    "decoder_layers": 2, "num_decoder_layers": 2, "depth": 2,
    "num_attention_heads": 4, "n_head": 4, "num_heads": 4, "n_heads": 4,
    "num_key_value_heads": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "intermediate_size": 48, "d_ff": 48, "d_kv": 8, "head_dim": 8, "ffn_dim": 48,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "hidden_dim": 48, "d_inner": 48,
    "max_position_embeddings": 40, "n_positions": 40, "max_source_positions": 40,
    "max_target_positions": 40, "num_position_embeddings": 36,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_intermediate_size": 16,
    "num_experts_per_tok": 2, "shared_expert_intermediate_size": 24, "expert_ffn_hidden_size": 16,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "state_size": 8, "time_step_rank": 4, "mamba_d_state": 8, "mamba_dt_rank": 4,
    "image_size": 32, "patch_size": 8, "num_mel_bins": 16, "out_hidden_size": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "image_token_id": 3, "image_token_index": 3, "audio_token_index": 4, "audio_token_id": 4,
    "video_token_id": 5, "video_token_index": 5, "vision_start_token_id": 6,
    "vision_end_token_id": 7,
}  # fmt: skip
"""Whatever of these a config has is set, in nested configs too."""

WIDTHS: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SWIN: dict[str, Any] = {
    "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 2, "patch_size": 4,
}  # fmt: skip
SPEECH: dict[str, Any] = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 8}
SERIES: dict[str, Any] = {"prediction_length": 8, "context_length": 16}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    # Text, encoders.
    "albert": {}, "bert": {}, "convbert": {}, "deberta": {}, "deberta-v2": {}, "distilbert": {},
    "electra": {}, "esm": {"vocab_size": 33}, "fnet": {}, "modernbert": {}, "mpnet": {},
    "roberta": {}, "xlnet": {},
    # Text, decoders.
    "bloom": {}, "codegen": {}, "falcon": {}, "gemma2": {}, "gemma3_text": {}, "gpt2": {},
    "gpt_bigcode": {}, "gpt_neo": {"attention_types": [[["global", "local"], 1]]}, "gpt_neox": {},
    "gptj": {}, "llama": {}, "mistral": {}, "olmo2": {}, "opt": {}, "phi": {}, "phi3": {},
    "qwen2": {}, "qwen3": {}, "stablelm": {},
    # Text, encoders with decoders.
    "bart": {}, "longt5": {}, "t5": {},
    # Mixtures of experts.
    "deepseek_v3": {}, "gpt_oss": {}, "granitemoe": {}, "jetmoe": {}, "llama4_text": {},
    "mixtral": {}, "nllb-moe": {"encoder_sparse_step": 1, "decoder_sparse_step": 1}, "olmoe": {},
    "phimoe": {}, "qwen2_moe": {}, "qwen3_moe": {},
    "switch_transformers": {"encoder_sparse_step": 1, "decoder_sparse_step": 1},
    # State spaces and recurrences.
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1}, "falcon_mamba": {},
    "jamba": {}, "lfm2": {}, "mamba": {}, "mamba2": {"num_heads": 8, "n_groups": 1},
    "qwen3_next": {"linear_num_value_heads": 4, "linear_num_key_heads": 2,
                   "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "recurrent_gemma": {}, "rwkv": {}, "xlstm": {},
    # Vision.
    "beit": {}, "convnext": WIDTHS, "convnextv2": WIDTHS, "dinov2": {}, "dinov3_vit": {},
    "hiera": {"depths": [1, 1, 1, 1]}, "levit": {"hidden_sizes": [16, 32, 48], "depths": [1, 1, 1],
                                               "key_dim": [8, 8, 8]},
    "poolformer": WIDTHS,
    "regnet": WIDTHS | {"embedding_size": 8, "groups_width": 8},
    "resnet": WIDTHS | {"embedding_size": 8}, "sam": {}, "segformer": WIDTHS, "swin": SWIN,
    "swinv2": SWIN, "vit": {}, "vit_mae": {}, "vitdet": {},
    # Audio.
    "audio-spectrogram-transformer": {}, "encodec": {"num_filters": 4, "codebook_size": 32,
                                                     "target_bandwidths": [1.5]},
    "hubert": SPEECH, "mimi": {"upsample_groups": 32, "num_filters": 4, "codebook_size": 32},
    "speecht5": SPEECH, "wav2vec2": SPEECH, "wav2vec2-bert": {}, "wavlm": SPEECH, "whisper": {},
    "vits": {"flow_size": 16, "upsample_initial_channel": 32, "spectrogram_bins": 17},
    # Several modalities.
    "blip": {}, "blip-2": {}, "clip": {}, "flava": {}, "gemma3": {}, "git": {},
    "idefics2": {}, "kosmos-2": {}, "layoutlmv3": {}, "llava": {}, "mllama": {}, "owlvit": {},
    "paligemma": {}, "qwen2_audio": {}, "qwen2_vl": {}, "siglip": {}, "smolvlm": {}, "vilt": {},
    # Series and actions.
    "decision_transformer": {}, "informer": SERIES, "patchtst": {},
    "time_series_transformer": SERIES, "timesfm": {},
}  # fmt: skip


def make_config(kind: str) -> PretrainedConfig:
    """The config of an architecture, made small."""
    small = _shrink(AutoConfig.for_model(kind))
    return AutoConfig.for_model(kind, **(small | ARCHITECTURES[kind]))


def build_architecture(kind: str) -> PreTrainedModel:
    """An initialised model of the architecture."""
    torch.manual_seed(0)
    return AutoModel.from_config(make_config(kind))


def name_kinds(model: nn.Module) -> dict[str, str]:
    """{tensor name: the class of the module that holds it}, as far as a role follows from it."""
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    kinds = {}
    for name in model.state_dict():
        place, _, leaf = name.rpartition(".")
        kind = _kind_of(modules[place])
        if kind and leaf in {"weight", "bias"} and name in parameters:
            kinds[name] = f"{kind}.{leaf}"
    return kinds


def _kind_of(module: nn.Module) -> str:
    if isinstance(module, Conv1D):
        return "Conv1D"
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return "ConvTranspose"
    if isinstance(module, nn.modules.conv._ConvNd):
        return f"Conv{len(module.kernel_size)}d"
    if isinstance(module, nn.Embedding):
        return "Embedding"
    if "norm" in type(module).__name__.lower():
        return "Norm"
    return "Linear" if type(module) is nn.Linear else ""


ROLES_OF_KINDS: dict[str, set[str]] = {
    "Linear.weight": {"linear", "fused_qkv", "experts"}, "Linear.bias": {"bias"},
    "Conv1D.weight": {"conv1d_transposed", "fused_qkv"}, "Conv1D.bias": {"bias"},
    "Conv1d.weight": {"conv1d"}, "Conv2d.weight": {"conv2d"}, "Conv3d.weight": {"conv3d"},
    "Conv1d.bias": {"bias"}, "Conv2d.bias": {"bias"}, "Conv3d.bias": {"bias"},
    "ConvTranspose.weight": {"conv_transpose"}, "ConvTranspose.bias": {"bias"},
    "Norm.weight": {"norm_scale"}, "Norm.bias": {"norm_shift"},
    # An Embedding is a table of words, places, distances or learned tokens.
    "Embedding.weight": {"embedding", "position_table", "relative_position", "class_token",
                         "mask_token"},
}  # fmt: skip
"""What a role may be, by the module's class."""


def _shrink(config: PretrainedConfig) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            changes[name] = _shrink(value) | {"model_type": value.model_type}
    known = vars(config).keys() | config.attribute_map.keys()
    for name in SMALL.keys() & known:
        if isinstance(getattr(config, name, None), int):
            changes[name] = SMALL[name]
    return changes
