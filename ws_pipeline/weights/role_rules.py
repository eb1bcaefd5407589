"""The rules that give a tensor its role, as data. No I/O, no logic.

Names in the wild follow no convention, so every rule here is a habit of some library that was seen,
and what no rule knows keeps the honest role ``unknown`` (and is tokenised all the same). The order
counts: the first rule that matches decides. Patterns are searched in the lower-case tensor name in
which ``/``, ``:`` and ``::`` are written as dots. :mod:`ws_pipeline.weights.roles` applies them.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Role(StrEnum):
    """What a tensor does in its network. Stable strings: they are written to tables."""

    LINEAR = "linear"
    CONV1D = "conv1d"
    CONV2D = "conv2d"
    CONV3D = "conv3d"
    CONV_TRANSPOSE = "conv_transpose"
    CONV1D_TRANSPOSED = "conv1d_transposed"
    EMBEDDING = "embedding"
    POSITION_TABLE = "position_table"
    RELATIVE_POSITION = "relative_position"
    CLASS_TOKEN = "class_token"  # noqa: S105 - not a password
    MASK_TOKEN = "mask_token"  # noqa: S105
    FUSED_QKV = "fused_qkv"
    NORM_SCALE = "norm_scale"
    NORM_SHIFT = "norm_shift"
    BIAS = "bias"
    BATCHNORM_MEAN = "batchnorm_mean"
    BATCHNORM_VAR = "batchnorm_var"
    COUNTER = "counter"
    BUFFER = "buffer"
    LAYER_SCALE = "layer_scale"
    TEMPERATURE = "temperature"
    RECURRENT_INPUT = "recurrent_input"
    RECURRENT_HIDDEN = "recurrent_hidden"
    EXPERTS = "experts"
    STATE_SPACE = "state_space"
    LORA_A = "lora_a"
    LORA_B = "lora_b"
    WEIGHT_MAGNITUDE = "weight_magnitude"
    ACTIVATION_SLOPE = "activation_slope"
    QUANTIZATION = "quantization"
    TIED = "tied"
    UNKNOWN = "unknown"


class Stage(IntEnum):
    """Where a tensor stands in the network's order."""

    INPUT = 0
    MIDDLE = 1
    DECODER = 2
    FINAL_NORM = 3
    HEAD = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleRule:
    """One habit: a name pattern, and the shapes of the tensors it speaks of.

    Attributes:
        pattern: Regular expression searched in the normalised name.
        ranks: Ranks it applies to; empty means any.
        with_bias: True: only with a partner bias; False: only without; None: either way.
        even_kernel: Only where every axis after the second is even. Convolutions that enlarge have
            kernels of 2, 4 or 16; those that follow an interpolation have 3.
    """

    role: Role
    pattern: str
    ranks: tuple[int, ...] = ()
    with_bias: bool | None = None
    even_kernel: bool = False


def _rule(
    role: Role,
    pattern: str,
    *ranks: int,
    with_bias: bool | None = None,
    even_kernel: bool = False,
) -> RoleRule:
    return RoleRule(
        role=role, pattern=pattern, ranks=ranks, with_bias=with_bias, even_kernel=even_kernel
    )


# The last component of a name under which libraries store a module's main weight.
_LEAF = r"(^|\.)(weight|kernel|w|weight_int8|weight_v|weight\.original1|weights?)(\.0)?$"
_NORM = (
    r"(norm|(^|[._])(ln|bn|gn|grn)[._\d]|[._]?(ln|bn|gn|layernorm)(_\w+)?\.|batchn|conv\d+_bn|-bn)"
)
_POSITION = (
    r"(wpe|p(os(ition(s|al)?)?)?_?e(mb(ed(ding(s)?)?)?)?|pos(ition(al)?)?_enc(oding)?s?"
    r"|position_table|(temporal|time)_embeddings?)"
)
# The ways in which a table's own leaf is called, or none.
_TABLE_LEAF = r"(\.(weight|kernel|embeddings?|position_embedding|table|pe))?(\.0)?$"
# A table's name goes on with what it is about, not with a word for a matrix.
_TABLE_TAIL = r"(?![^.]*(proj|dense|linear|hidden_mapping))[^.]*"

ROLE_RULES: tuple[RoleRule, ...] = (
    # Bookkeeping and buffers first: they are no weights whatever they look like.
    _rule(Role.COUNTER, r"(num_batches_tracked|n_averaged|num_updates|num_samples)$"),
    _rule(Role.COUNTER, r"(^|\.)(global_)?(step|epoch|iter|iteration|count|best_epoch)$", 0),
    _rule(Role.BATCHNORM_MEAN, r"(running|moving|pop)_mean(\.0)?$"),
    _rule(Role.BATCHNORM_VAR, r"(running|moving|pop)_(var|variance|std)(\.0)?$"),
    _rule(Role.BATCHNORM_MEAN, r"norm\d*\.mean$", 1),
    _rule(Role.BATCHNORM_VAR, r"norm\d*\.(std|var)$", 1),
    _rule(Role.BUFFER, r"(attn_mask|attention_mask|masked_bias|causal_mask|_buffer|inv_freq)$"),
    _rule(Role.BUFFER, r"(position_ids|token_type_ids|relative_(position_index|coords_table))$"),
    _rule(Role.BUFFER, r"(rotary|rope).*(cos|sin|alpha)(_cached)?$|freqs_cis$"),
    _rule(Role.BUFFER, r"(attn|attention)\.bias$", 4),
    _rule(Role.BUFFER, r"codebook\.(cluster_(size|usage)|embed_avg|inited|initialized)$"),
    _rule(Role.BUFFER, r"(slope_rate|(query|key|diagonal)_decay|points_scale|bin_centers)$"),
    _rule(Role.BUFFER, r"((norm|global|pixel)_(mean|std|invstd)|(^|\.)vocoder\.(mean|scale))$"),
    _rule(Role.BUFFER, r"(new_shape|const_fold_opt|pad_const)__\d+$|onnx\.+stft_\d+$"),
    _rule(Role.BUFFER, r"weight_[uv]$", 1),
    _rule(Role.BUFFER, r"(alphas_cumprod|anchor_grid|(^|\.)anchors|w_avg|noise_const)$"),
    # What quantisers write; quantization.py says which format it is.
    _rule(Role.QUANTIZATION, r"(^|[._])(zero_points?|scales|qzeros|qweight|g_idx)(__\d+)?$"),
    _rule(Role.QUANTIZATION, r"absmax$|quant_map$|quant_state\.|(^|\.)scb$|weight_format$"),
    _rule(
        Role.QUANTIZATION,
        r"(^|[._](?<!correct_))(weight|input|output|k|v|q)_scale(_inv|_2)?$|(^|[._])scale__\d+$",
    ),
    _rule(Role.QUANTIZATION, r"weight_(packed|zero_point|shape|g_idx|qdata|global_scale)$"),
    _rule(Role.QUANTIZATION, r"expert.*(proj|w\d?)_(blocks|scales?)$"),
    _rule(
        Role.QUANTIZATION,
        r"(_integer|(act|fc|weight|bias)_scaling_factor|(^|\.)(in|out)put_(min|max)|\.x_(min|max))$",
    ),
    # Adapters.
    _rule(Role.LORA_A, r"lora_(a|down|embedding_a)(\.|$)|lora(_layer)?\.down\.|hada_w\d_b$"),
    _rule(Role.LORA_B, r"lora_(b|up|embedding_b)(\.|$)|lora(_layer)?\.up\.|hada_w\d_a$"),
    _rule(Role.WEIGHT_MAGNITUDE, r"lora_magnitude_vector|dora_scale$"),
    _rule(Role.LAYER_SCALE, r"ia3_l(\.|$)|vera_lambda_[bd]$"),
    _rule(Role.LAYER_SCALE, r"lora.*\.alpha$", 0),
    # Tokens and tables of transformers.
    _rule(
        Role.CLASS_TOKEN,
        r"(cls|class|distillation|dist|register|reg|detection|group|iou|obj_score|presence|hq|"
        r"bos_eos|segment|type)_tokens?(_\w+)?(\.weight)?$",
    ),
    _rule(Role.CLASS_TOKEN, r"class_embedding$|(^|\.)(cls_emb|probe|bos_latent|silence_embeds)$"),
    _rule(Role.CLASS_TOKEN, r"image_(newline|begin|end|sep)$|view_separator$|(eoi|boi)_embedding$"),
    _rule(Role.CLASS_TOKEN, r"no_(memory_(pos\w+|embedding)|object_pointer)$|feature_extensor$"),
    _rule(Role.MASK_TOKEN, r"mask_(tokens?|emb|embedding|embed)(\.weight)?$|masked_spec_embed$"),
    _rule(
        Role.RELATIVE_POSITION,
        r"(^|[._])rel(ative)?_(pos(ition)?|att(entio)?n_bias|emb)(?![^.]*linear)[^.]*"
        r"(\.(weight|embeddings?))?$",
        *(1, 2, 3),
        with_bias=False,
    ),
    _rule(Role.RELATIVE_POSITION, r"((pos_)?bias_[uv]|r_[wrs]_bias|attention_biases)$"),
    _rule(Role.RELATIVE_POSITION, r"(emb_rel_[kv]|(^|\.)position_bias|\.pe_k\.weight)$", 2, 3),
    _rule(
        Role.POSITION_TABLE,
        rf"(^|[._]){_POSITION}(_(x|y|h|w|win|window|abs|spatial|temporal|class|vlm|table))*"
        rf"(\.weights\.\d)?{_TABLE_LEAF}",
        *(1, 2, 3, 4),
        with_bias=False,
    ),
    _rule(Role.POSITION_TABLE, r"embed_positions(\.weight)?$", 2, 3, with_bias=False),
    _rule(Role.POSITION_TABLE, r"pos_idx_to_embed$|compress_ape$", 2),
    # Factors that scale a whole layer or channel, without being a normalisation.
    _rule(Role.TEMPERATURE, r"(logit_scale(_\w+)?|temperature|(^|\.)temp)$", 0, 1, 3),
    _rule(Role.LAYER_SCALE, r"(layer_?scal|(^|\.)ls\d?\.|scale_shift_table)", 1, 2, 3, 4),
    _rule(Role.LAYER_SCALE, r"(^|[._])(lambda_?|gamma_)[12]$", 1),
    _rule(Role.LAYER_SCALE, r"(per_dim|residual|states|output)_scale$|_residual$|\.scaling$", 1),
    _rule(Role.LAYER_SCALE, r"(^|[._])(gate|gate_(attn|ffn)|(attn|mlp)_gate|alpha_\w+)$", 1),
    _rule(Role.LAYER_SCALE, r"\.(vision|text)_param$|(^|\.)lambdas$", 1),
    _rule(Role.BIAS, r"(^|\.)sinks$", 1),
    # Activations with parameters: PReLU, snake, xIELU.
    _rule(Role.ACTIVATION_SLOPE, r"(p_?re_?lu|(^|\.)act(_fn)?|activation).*(weight|slope)$", 0, 1),
    _rule(
        Role.ACTIVATION_SLOPE,
        r"(snake\d*|act(_fn)?|p_?re_?lu)\.(alpha|beta|eps)(_[np])?(\.0)?$",
        0,
        1,
        3,
    ),
    _rule(Role.ACTIVATION_SLOPE, r"\.slope$", 0, 1),
    # Normalisation layers.
    _rule(Role.NORM_SCALE, rf"{_NORM}.*(weight|gamma|scale|(^|\.)g|kernel)(\.0)?$", 1),
    _rule(Role.NORM_SHIFT, rf"{_NORM}.*(bias|beta|shift|offset|(^|\.)b)(\.0)?$", 1),
    _rule(Role.NORM_SCALE, r"(norm|ln|grn)\d*\.(weight|gamma|scale)$", 2, 3, 4),
    _rule(Role.NORM_SHIFT, r"(norm|ln|grn)\d*\.(bias|beta)$", 2, 3, 4),
    _rule(Role.NORM_SCALE, r"(^|[._])gamma(\.0)?$", 1, with_bias=True),
    _rule(Role.LAYER_SCALE, r"(^|[._])gamma(\.0)?$", 1, with_bias=False),
    _rule(Role.NORM_SHIFT, r"(^|[._])beta(\.0)?$", 1),
    # Re-parametrised weights: magnitude and direction.
    _rule(Role.WEIGHT_MAGNITUDE, r"(weight\.original0|weight_g)$"),
    # Recurrent nets: input and hidden gates stacked.
    _rule(Role.RECURRENT_HIDDEN, r"(weight|w)_hh(_l\d+)?(_reverse)?$|recurrent_kernel", 2),
    _rule(Role.RECURRENT_HIDDEN, r"(weight|w)_hr_l\d+(_reverse)?$", 2),
    _rule(Role.RECURRENT_INPUT, r"(weight|w)_ih(_l\d+)?(_reverse)?$", 2),
    _rule(Role.RECURRENT_INPUT, r"(lstm|gru|rnn).*(kernel|weight_int8|\.[ci]\w?\d?\.weight)", 2),
    _rule(Role.RECURRENT_INPUT, r"\.(ci|gi|gf1|gf2|go)\.weight", 2),
    _rule(Role.RECURRENT_INPUT, r"(recurrent|input)_gate_weight$", 2, 3),
    # Attention. Only torch's own MultiheadAttention writes in_proj_weight; in_proj.weight is plain.
    _rule(Role.FUSED_QKV, r"in_proj_weight$|in_proj_qkvz?\.weight$", 2),
    _rule(Role.FUSED_QKV, r"(^|[._])(to_)?w?(qkv|kv)(_proj|_linear)?([._](weight|kernel))?$", 2, 3),
    _rule(Role.FUSED_QKV, r"(c_attn|query_key_value|w_pack|att_proj)\.weight$", 2),
    # GPT-2's Conv1D by name; where the shapes say (output, input) it becomes a linear.
    _rule(Role.CONV1D_TRANSPOSED, r"(^|\.)(c_fc|c_proj|q_attn)\.weight$", 2),
    # State-space models.
    _rule(
        Role.STATE_SPACE,
        r"(^|\.)(a_log|a_imag|log_a_real|log_dt|d|dt_bias)$|time_(decay|first|mix|maa|faaaa)\w*$",
    ),
    _rule(Role.STATE_SPACE, r"(recurrent_param|attn\.a)$", 1),
    _rule(Role.STATE_SPACE, r"kernel\.[bcp]$|\.att\.([wavg][012]|x_[rwkvag]|[rk]_[ka])$"),
    # Embeddings: a module called so, or a bare table; a bias makes it a projection.
    _rule(
        Role.EMBEDDING,
        rf"((?<!patch_)emb{_TABLE_TAIL}|wte|lookup[^.]*|vocab[^.]*|codebook)(\.\d+)?{_TABLE_LEAF}",
        2,
        with_bias=False,
    ),
    _rule(
        Role.EMBEDDING,
        r"(^|\.)(shared|w|reference_points|quer(y|ies)_feat(ures)?)\.weight$|"
        r"(^|[._])(query_tokens?|latents?(_[12]d)?|query|queries|seg_embed)$",
        *(2, 3),
        with_bias=False,
    ),
    _rule(
        Role.EMBEDDING,
        r"(text|visual|soft)_prompt$|synthesis\.b4\.const$|prompter\.pad_\w+$|prompt_embeddings?$",
    ),
    # A bias of any rank, before matrices take those of rank 2.
    _rule(Role.BIAS, r"(^|[._])bias(es)?(\.0)?$|glu\.b\d$", 2, 3, 4),
    # Experts: stacked (expert, output, input), or each a matrix of its own.
    _rule(Role.EXPERTS, r"expert|(^|[._])moe[._].*_linear\.weight|mlp\.(in|out)put_linear", 3),
    _rule(Role.EXPERTS, r"experts\.mlp\.[wv]\d$", 2),
    _rule(Role.EXPERTS, r"(?<!shared_)experts?[._]\d+[._].*(weight|w\d)$", 2),
    # Stacks of matrices that are no experts: (part, output, input).
    _rule(Role.LINEAR, r"(linear|codebooks_head|rel_attn\.[qkvor]|spline_weight)(\.weight)?$", 3),
    _rule(Role.LINEAR, r"(dt|x)_proj_weight$|(query|key|value|out)\.kernel$", 3),
    _rule(Role.LINEAR, r"\.att(_src|_dst|_edge)?$", 3),
    # Convolutions by rank; a layer of rank 3 or more that is called a weight is one.
    _rule(Role.CONV_TRANSPOSE, r"(deconv|conv_?transpose|transposed_conv|convt_)", 3, 4, 5),
    _rule(Role.CONV_TRANSPOSE, r"upsampl|(^|\.)(ups|upscale)\.", 3, 4, 5, even_kernel=True),
    _rule(Role.CONV1D, rf"conv|{_LEAF}|patch|proj|initializer", 3),
    _rule(Role.CONV2D, rf"conv|{_LEAF}|patch|proj|initializer", 4),
    _rule(Role.CONV3D, rf"conv|{_LEAF}|patch|proj", 5),
    # Matrices.
    _rule(Role.LINEAR, _LEAF, 2),
    _rule(Role.LINEAR, r"matmul|gemm|dense|linear|(^|[._])fc\d*([._]|$)|proj", 2),
    _rule(Role.LINEAR, r"readvariableop|hidden|initializer|(^|[._])w(eight)?(\d*|_[a-z])$", 2),
    _rule(Role.LINEAR, r"hc(_head)?\.(hc_)?fn$|_gate$", 2),
    # Vectors.
    _rule(Role.BIAS, r"bias|(^|[._])b(_ih|_hh)?\d*$", 0, 1),
    _rule(Role.BIAS, r"onnx\.+conv_\d+", 1),
    _rule(Role.NORM_SCALE, r"(^|\.)(weight|scale)$", 1),
)

# How the name of a weight becomes the name of its bias. Tried in order; the first that exists and
# fits in size is the partner. ``\g<0>`` stands for the match.
BIAS_PARTNERS: tuple[tuple[str, str], ...] = (
    (r"weight$", "bias"),
    (r"kernel$", "bias"),
    (r"kernel:0$", "bias:0"),
    (r"scale$", "bias"),
    (r"gamma$", "beta"),
    (r"gamma:0$", "beta:0"),
    (r"weight_(ih|hh)_l", r"bias_\1_l"),
    (r"_weight$", "_bias"),
    (r"w_(ih|hh)$", r"b_\1"),
    (r"weight_(ih|hh)$", r"bias_\1"),
    (r"parametrizations\.weight\.original1$", "bias"),
    (r"weight_v$", "bias"),
    (r"(Cast|MatMul)/ReadVariableOp", "BiasAdd/ReadVariableOp"),
    (r"(^|[._])w(\d*)$", r"\1b\2"),
    (r"(^|[._])W(\d*)$", r"\1b\2"),
    (r"weights$", "biases"),
)

# Leaves under which TensorFlow, Keras and Flax store (input, output): the output axis is the last.
OUTPUT_LAST_PATTERN = r"(^|[./])((recurrent|pointwise)_)?kernel(:0)?$|matmul|onnx_initializer"

# Names that only (output, input) layers were seen under, whatever the layers around them do.
OUTPUT_FIRST_PATTERN = r"(^|\.)([qkvo]|out|gate|up|down)_proj\.weight$"

# Where a module stands when its name is in no numbered block; the first match counts, MIDDLE else.
STAGE_RULES: tuple[tuple[Stage, str], ...] = (
    (Stage.HEAD, r"(^|\.)(lm_head|cls|classifier|fc|heads?|score|pooler|qa_outputs)(\.|$)"),
    (Stage.FINAL_NORM, r"(^|\.)(ln_f|norm_f|final_\w*norm)(\.|$)"),
    (Stage.HEAD, r"(output|_out|logits|final|predict)\w*\.(weight|bias)$"),
    (Stage.INPUT, r"(^|\.)shared\.|emb|wte|wpe|token|stem|patch|(^|\.)conv1?\.|(^|\.)bn1\."),
)
