"""Modules of every architecture from their sizes and the data set's shape, not yet trained. No I/O.

The transformers are transformers' own classes with eager attention and no dropout, so their repos
load with ``from_pretrained``. Not here: what an architecture is called and how it is run
(``architectures``).
"""

import math
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from ws_pipeline.zoo.datasets.dataset import LabelledDataset, TextDataset
from ws_pipeline.zoo.datasets.texts import PAD_ID
from ws_pipeline.zoo.modules import Cnn, Mlp, ResNet18


def build_mlp(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    """Make a multilayer perceptron over all pixels."""
    input_size = math.prod(dataset.image_shape)
    return Mlp(input_size=input_size, num_labels=dataset.num_labels, **sizes)


def build_cnn(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    """Make the small CNN."""
    num_channels, image_size, _ = dataset.image_shape
    return Cnn(
        image_size=image_size, num_channels=num_channels, num_labels=dataset.num_labels, **sizes
    )


def build_resnet18(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    """Make the ResNet for small images."""
    return ResNet18(num_channels=dataset.image_shape[0], num_labels=dataset.num_labels, **sizes)


def _initializer_range(width: int) -> float:
    """Standard deviation of initial weights.

    The classes' default of 0.02 is made for a width of 768; a tiny model that starts so small
    spends its whole training on a plateau.
    """
    return round(0.5 / math.sqrt(width), 4)


def build_vit(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    """Make transformers' ViT classifier, or that with a hidden layer before the last."""
    from transformers import ViTConfig, ViTForImageClassification

    from ws_pipeline.zoo.vit_heads import HEAD_ACTIVATION, ViTMlpHeadForImageClassification

    has_mlp = sizes["head"] == "mlp"
    hidden = {"pooler_output_size": sizes["mlp_size"], "pooler_act": HEAD_ACTIVATION}
    config = cast("Any", ViTConfig)(
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=sizes["mlp_size"],
        patch_size=sizes["patch_size"],
        image_size=dataset.image_shape[1],
        num_channels=dataset.image_shape[0],
        num_labels=dataset.num_labels,
        initializer_range=_initializer_range(sizes["width"]),
        attn_implementation="eager",
        **(hidden if has_mlp else {}),
    )
    return (
        ViTMlpHeadForImageClassification(config) if has_mlp else ViTForImageClassification(config)
    )


def build_bert(sizes: Mapping[str, Any], dataset: LabelledDataset) -> nn.Module:
    """Make transformers' BERT classifier of windows of text."""
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


def build_gpt2(sizes: Mapping[str, Any], dataset: TextDataset) -> nn.Module:
    """Make transformers' GPT-2 over characters."""
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
