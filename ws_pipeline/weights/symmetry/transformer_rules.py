"""What transformers' families call their parts, as data. No I/O, no logic.

One entry per naming; a family is listed only when a test runs its permuted models. Names are those
of published files (``save_pretrained``). :mod:`ws_pipeline.weights.symmetry.transformers` reads
them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionNames:
    """Modules of one attention, relative to its block.

    Attributes:
        fused: One module in place of query, key and value, which follow each other in it.
        rotary: Whether positions rotate queries and keys: their dimensions then have fixed places.
        bias_table: Table ``(buckets, heads)`` in the first block whose columns follow the heads of
            all blocks; "" for none.
        norms: Norms over the dimensions of a head that all heads share.
    """

    output: str
    query: str = ""
    key: str = ""
    value: str = ""
    fused: str = ""
    rotary: bool = False
    bias_table: str = ""
    norms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class MlpNames:
    """Modules of one two-layer perceptron; several inputs are gates of the same hidden units."""

    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyNames:
    """One naming.

    Attributes:
        model_types: As ``config.json`` has them.
        block: Regular expression of a block's prefix; its group "stack" names what blocks share.
        attentions: Of which a block may have each.
        mlps: Of which a block may have each.
        passive: Modules of a block that only the residual stream touches.
        buffers: Regular expression of tensors that no permutation touches, anywhere.
        transposed: Whether matrices are stored (input, output).
        residual: (regular expression of a whole name, axis along the residual stream); -1 for
            tensors beside the stream. Several axes take several rules.
        heads: (regular expression of the architecture, name, axis): rules for heads whose names
            alone do not say what they read.
    """

    model_types: frozenset[str]
    block: str
    attentions: tuple[AttentionNames, ...]
    mlps: tuple[MlpNames, ...]
    passive: tuple[str, ...]
    residual: tuple[tuple[str, int], ...]
    heads: tuple[tuple[str, str, int], ...] = ()
    buffers: str = r"$^"
    transposed: bool = False


_BERT_ATTENTION = AttentionNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
)
_VIT_ATTENTION = AttentionNames(
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    output="attention.output.dense",
)
_LLAMA_ATTENTION = AttentionNames(
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    norms=("self_attn.q_norm", "self_attn.k_norm"),
    rotary=True,
)
_POSITION_IDS = r".*(position_ids|token_type_ids)"

FAMILIES: tuple[FamilyNames, ...] = (
    FamilyNames(
        model_types=frozenset({"vit", "deit"}),
        block=r"(?:.*\.)?encoder\.layer\.\d+\.",
        attentions=(_VIT_ATTENTION,),
        mlps=(MlpNames(inputs=("intermediate.dense",), output="output.dense"),),
        passive=("layernorm_before", "layernorm_after"),
        residual=(
            (r".*(cls_token|mask_token|distillation_token|position_embeddings)", 2),
            (r".*patch_embeddings\.projection\.(weight|bias)", 0),
            (r".*attention\.(query|key|value)\.weight", 1),
            (r".*attention\.(query|key|value)\.bias", -1),
            (r".*attention\.output\.dense\.(weight|bias)", 0),
            (r".*intermediate\.dense\.weight", 1),
            (r".*intermediate\.dense\.bias", -1),
            (r".*layer\.\d+\.output\.dense\.(weight|bias)", 0),
            (r".*layernorm(_before|_after)?\.(weight|bias)", 0),
            (r"(.*pooler\.dense|classifier|cls_classifier|distillation_classifier)\.bias", -1),
            (r".*pooler\.dense\.weight", 1),
        ),
        heads=(
            # Of the zoos, with a hidden layer in the head; it reads the pooled vector.
            (r"ViTMlpHeadForImageClassification", r"classifier\.weight", -1),
            (
                r"(?!ViTMlpHead).*",
                r"(classifier|cls_classifier|distillation_classifier)\.weight",
                1,
            ),
        ),
    ),
    FamilyNames(
        model_types=frozenset({"bert", "roberta", "xlm-roberta", "camembert"}),
        block=r"(?:.*\.)?encoder\.layer\.\d+\.",
        attentions=(_BERT_ATTENTION,),
        mlps=(MlpNames(inputs=("intermediate.dense",), output="output.dense"),),
        passive=("attention.output.LayerNorm", "output.LayerNorm"),
        buffers=_POSITION_IDS,
        residual=(
            (r".*embeddings\.(word|position|token_type)_embeddings\.weight", 1),
            (r".*LayerNorm\.(weight|bias|gamma|beta)", 0),
            (r".*self\.(query|key|value)\.weight", 1),
            (r".*self\.(query|key|value)\.bias", -1),
            (r".*attention\.output\.dense\.(weight|bias)", 0),
            (r".*intermediate\.dense\.weight", 1),
            (r".*intermediate\.dense\.bias", -1),
            (r".*layer\.\d+\.output\.dense\.(weight|bias)", 0),
            # The head's transformation ends where the tied embedding begins.
            (r"(cls\.predictions\.transform|lm_head)\.dense\.weight", 1),
            (r"(cls\.predictions\.transform|lm_head)\.dense\.(weight|bias)", 0),
            (r"lm_head\.layer_norm\.(weight|bias)", 0),
            (r"(cls\.predictions|lm_head)\.decoder\.weight", 1),
            (r"(cls\.predictions|lm_head)(\.decoder)?\.bias", -1),
            (r"(.*pooler\.dense|classifier\.dense|cls\.seq_relationship)\.bias", -1),
            (r".*pooler\.dense\.weight|classifier\.dense\.weight", 1),
            (r"(classifier\.out_proj\.(weight|bias)|cls\.seq_relationship\.weight)", -1),
        ),
        heads=(
            # This one reads the pooled vector, the others the stream.
            (r"BertFor(SequenceClassification|MultipleChoice)", r"classifier\.weight", -1),
            (r".*ForTokenClassification", r"classifier\.weight", 1),
            (r".*ForQuestionAnswering", r"qa_outputs\.weight", 1),
            (r".*", r"(classifier|qa_outputs)\.bias", -1),
        ),
    ),
    FamilyNames(
        model_types=frozenset({"distilbert"}),
        block=r"(?:.*\.)?transformer\.layer\.\d+\.",
        attentions=(
            AttentionNames(
                query="attention.q_lin",
                key="attention.k_lin",
                value="attention.v_lin",
                output="attention.out_lin",
            ),
        ),
        mlps=(MlpNames(inputs=("ffn.lin1",), output="ffn.lin2"),),
        passive=("sa_layer_norm", "output_layer_norm"),
        residual=(
            (r".*embeddings\.(word|position)_embeddings\.weight", 1),
            (r".*(LayerNorm|layer_norm)\.(weight|bias)", 0),
            (r".*attention\.[qkv]_lin\.weight", 1),
            (r".*attention\.[qkv]_lin\.bias", -1),
            (r".*(attention\.out_lin|ffn\.lin2)\.(weight|bias)", 0),
            (r".*ffn\.lin1\.weight", 1),
            (r".*ffn\.lin1\.bias", -1),
            (r"vocab_transform\.weight", 1),
            (r"vocab_transform\.(weight|bias)", 0),
            (r"vocab_projector\.weight", 1),
            (r"vocab_projector\.bias", -1),
        ),
    ),
    FamilyNames(
        model_types=frozenset({"gpt2"}),
        block=r"(?:.*\.)?h\.\d+\.",
        attentions=(AttentionNames(fused="attn.c_attn", output="attn.c_proj"),),
        mlps=(MlpNames(inputs=("mlp.c_fc",), output="mlp.c_proj"),),
        passive=("ln_1", "ln_2"),
        transposed=True,
        buffers=r".*\.attn\.(bias|masked_bias)",
        residual=(
            (r"(.*\.)?(wte|wpe)\.weight", 1),
            (r"(.*\.)?ln_(1|2|f)\.(weight|bias)", 0),
            (r".*(c_attn|c_fc)\.weight", 0),
            (r".*(c_attn|c_fc)\.bias", -1),
            (r".*c_proj\.weight", 1),
            (r".*c_proj\.bias", 0),
            (r"(lm_head|score)\.weight", 1),
        ),
    ),
    FamilyNames(
        model_types=frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma"}),
        block=r"(?:.*\.)?layers\.\d+\.",
        attentions=(_LLAMA_ATTENTION,),
        mlps=(MlpNames(inputs=("mlp.gate_proj", "mlp.up_proj"), output="mlp.down_proj"),),
        passive=("input_layernorm", "post_attention_layernorm"),
        buffers=r".*rotary_emb\.inv_freq",
        residual=(
            (r"(.*\.)?embed_tokens\.weight", 1),
            (r".*(input|post_attention)_layernorm\.weight", 0),
            (r"(.*\.)?norm\.weight", 0),
            (r".*self_attn\.[qk]_norm\.weight", -1),
            (r".*([qkv]|gate|up)_proj\.weight", 1),
            (r".*([qkv]|gate|up)_proj\.bias", -1),
            (r".*(o|down)_proj\.(weight|bias)", 0),
            (r"(lm_head|score)\.weight", 1),
        ),
    ),
    FamilyNames(
        model_types=frozenset({"t5"}),
        block=r"(?P<stack>encoder|decoder)\.block\.\d+\.",
        attentions=(
            AttentionNames(
                query="layer.0.SelfAttention.q",
                key="layer.0.SelfAttention.k",
                value="layer.0.SelfAttention.v",
                output="layer.0.SelfAttention.o",
                bias_table="layer.0.SelfAttention.relative_attention_bias",
            ),
            AttentionNames(
                query="layer.1.EncDecAttention.q",
                key="layer.1.EncDecAttention.k",
                value="layer.1.EncDecAttention.v",
                output="layer.1.EncDecAttention.o",
            ),
        ),
        mlps=tuple(
            MlpNames(inputs=inputs, output=f"layer.{place}.DenseReluDense.wo")
            for place in (1, 2)
            for inputs in (
                (f"layer.{place}.DenseReluDense.wi",),
                (f"layer.{place}.DenseReluDense.wi_0", f"layer.{place}.DenseReluDense.wi_1"),
            )
        ),
        passive=("layer.0.layer_norm", "layer.1.layer_norm", "layer.2.layer_norm"),
        residual=(
            (r"(shared|(encoder|decoder)\.embed_tokens|lm_head)\.weight", 1),
            (r".*layer_norm\.weight", 0),
            (r".*Attention\.[qkv]\.weight", 1),
            (r".*(Attention\.o|DenseReluDense\.wo)\.weight", 0),
            (r".*DenseReluDense\.wi(_[01])?\.weight", 1),
            (r".*relative_attention_bias\.weight", -1),
        ),
    ),
)

HEAD_COUNT_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEY_HEAD_COUNT_KEYS = ("num_key_value_heads",)
HEAD_SIZE_KEYS = ("head_dim", "d_kv")
