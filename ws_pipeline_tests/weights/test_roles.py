"""Roles: what a tensor is follows from names and shapes, and nothing crashes on strange ones."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.role_rules import ROLE_RULES, Role
from ws_pipeline.weights.roles import assign_roles, match_rule, matrix_shape

Shape = tuple[int, ...]


def info(name: str, shape: Shape, dtype: str = "F32") -> TensorInfo:
    count = math.prod(shape)
    return TensorInfo(
        name=name,
        dtype=dtype,
        shape=shape,
        start=0,
        end=4 * count,
        num_params=count,
        num_bytes=4 * count,
    )


def roles_of(shapes: dict[str, Shape]) -> dict[str, str]:
    found = assign_roles([info(name, shape) for name, shape in shapes.items()])
    return {name: str(found[name].role) for name in shapes}


HABITS: list[tuple[str, Shape, Role]] = [
    ("features.0.weight", (8, 3, 3, 3), Role.CONV2D),
    ("encoder.conv.weight", (8, 3, 5), Role.CONV1D),
    ("unit1_conv.weight", (8, 3, 3, 3, 3), Role.CONV3D),
    ("vit.embeddings.patch_embeddings.projection.weight", (16, 3, 4, 4), Role.CONV2D),
    ("vit.embeddings.cls_token", (1, 1, 16), Role.CLASS_TOKEN),
    ("vision_model.embeddings.class_embedding", (16,), Role.CLASS_TOKEN),
    ("vit.embeddings.mask_token", (1, 1, 16), Role.MASK_TOKEN),
    ("wav2vec2.masked_spec_embed", (16,), Role.MASK_TOKEN),
    ("vit.embeddings.position_embeddings", (1, 5, 16), Role.POSITION_TABLE),
    ("pos_embed", (1, 5, 16), Role.POSITION_TABLE),
    ("bert.embeddings.position_embeddings.weight", (20, 16), Role.POSITION_TABLE),
    ("transformer.wpe.weight", (20, 16), Role.POSITION_TABLE),
    ("model.decoder.embed_positions.weight", (20, 16), Role.POSITION_TABLE),
    ("text_model.positional_embedding", (20, 16), Role.POSITION_TABLE),
    ("bert.embeddings.word_embeddings.weight", (30, 16), Role.EMBEDDING),
    ("bert.embeddings.token_type_embeddings.weight", (2, 16), Role.EMBEDDING),
    ("transformer.wte.weight", (30, 16), Role.EMBEDDING),
    ("model.embed_tokens.weight", (30, 16), Role.EMBEDDING),
    ("shared.weight", (30, 16), Role.EMBEDDING),
    ("enc_emb", (30, 16), Role.EMBEDDING),
    ("lm_head.weight", (30, 16), Role.LINEAR),
    ("model.layers.0.mlp.gate_proj.weight", (24, 16), Role.LINEAR),
    ("layers.0.attn.in_proj.weight", (24, 16), Role.LINEAR),
    ("encoder.self_attn.in_proj_weight", (48, 16), Role.FUSED_QKV),
    ("blocks.0.attn.qkv.weight", (48, 16), Role.FUSED_QKV),
    ("gpt_neox.layers.0.attention.query_key_value.weight", (48, 16), Role.FUSED_QKV),
    ("model.layers.0.input_layernorm.weight", (16,), Role.NORM_SCALE),
    ("bert.embeddings.LayerNorm.gamma", (16,), Role.NORM_SCALE),
    ("bert.embeddings.LayerNorm.beta", (16,), Role.NORM_SHIFT),
    ("model.norm.weight", (16,), Role.NORM_SCALE),
    ("bn1.running_mean", (8,), Role.BATCHNORM_MEAN),
    ("bn1.running_var", (8,), Role.BATCHNORM_VAR),
    ("conv1-BN.conv1-BN_3.moving_variance", (8,), Role.BATCHNORM_VAR),
    ("bn1.num_batches_tracked", (), Role.COUNTER),
    ("blocks.0.ls1.gamma", (16,), Role.LAYER_SCALE),
    ("encoder.layer.0.layer_scale1.lambda1", (16,), Role.LAYER_SCALE),
    ("beit.encoder.layer.0.lambda_1", (16,), Role.LAYER_SCALE),
    ("attention.relative_position_bias_table", (9, 2), Role.RELATIVE_POSITION),
    ("SelfAttention.relative_attention_bias.weight", (32, 2), Role.RELATIVE_POSITION),
    ("h.0.attn.bias", (1, 1, 20, 20), Role.BUFFER),
    ("lstm.weight_ih_l0", (16, 3), Role.RECURRENT_INPUT),
    ("lstm.weight_hh_l0_reverse", (16, 4), Role.RECURRENT_HIDDEN),
    ("dec_w_hh", (12, 4), Role.RECURRENT_HIDDEN),
    ("base_model.model.q_proj.lora_A.weight", (4, 16), Role.LORA_A),
    ("base_model.model.q_proj.lora_B.default.weight", (16, 4), Role.LORA_B),
    ("mixer.A_log", (16, 4), Role.STATE_SPACE),
    ("model.layers.0.mlp.experts.gate_up_proj", (4, 16, 48), Role.EXPERTS),
    ("lin0.parametrizations.weight.original0", (8, 1), Role.WEIGHT_MAGNITUDE),
    ("PRelu_1.slope", (8,), Role.ACTIVATION_SLOPE),
    ("turner.score_int11", (8, 8, 5, 5), Role.UNKNOWN),
    ("xyzzy", (8, 8), Role.UNKNOWN),
]


LIBRARIES: dict[str, list[tuple[str, Shape, Role]]] = {
    "timm": [
        ("reg_token", (1, 4, 16), Role.CLASS_TOKEN),
        ("dist_token", (1, 1, 16), Role.CLASS_TOKEN),
        ("pos_embed_win", (1, 8, 4, 4), Role.POSITION_TABLE),
        ("attn_pool.latent", (1, 1, 16), Role.EMBEDDING),
        ("patch_embed.proj.weight", (16, 3, 4, 4), Role.CONV2D),
        ("norm_pre.weight", (16,), Role.NORM_SCALE),
        ("blocks.0.attn.q_norm.weight", (4,), Role.NORM_SCALE),
        ("blocks.0.attn.q_bias", (16,), Role.BIAS),
        ("blocks.0.attn.temperature", (4, 1, 1), Role.TEMPERATURE),
        ("blocks.0.gamma_1", (16,), Role.LAYER_SCALE),
        ("stages.0.blocks.0.gamma", (8,), Role.LAYER_SCALE),
        ("stages.0.blocks.0.conv_dw.weight", (8, 1, 7, 7), Role.CONV2D),
        ("stages.1.downsample.0.weight", (8,), Role.NORM_SCALE),
        ("stages.0.blocks.0.attn.attention_biases", (4, 49), Role.RELATIVE_POSITION),
        ("layers.0.blocks.0.attn.relative_position_bias_table", (49, 4), Role.RELATIVE_POSITION),
        ("layers.0.downsample.reduction.weight", (32, 64), Role.LINEAR),
        ("blocks.0.0.se.conv_reduce.weight", (4, 8, 1, 1), Role.CONV2D),
        ("rope.inv_freq", (4,), Role.BUFFER),
    ],
    "torchvision": [
        ("class_token", (1, 1, 16), Role.CLASS_TOKEN),
        ("encoder.pos_embedding", (1, 17, 16), Role.POSITION_TABLE),
        ("encoder.layers.encoder_layer_0.ln_1.weight", (16,), Role.NORM_SCALE),
        ("encoder.layers.encoder_layer_0.self_attention.in_proj_weight", (48, 16), Role.FUSED_QKV),
        ("conv_proj.weight", (16, 3, 4, 4), Role.CONV2D),
        ("features.1.0.layer_scale", (8, 1, 1), Role.LAYER_SCALE),
        ("features.denseblock1.denselayer1.norm1.weight", (8,), Role.NORM_SCALE),
        ("layer1.0.downsample.1.weight", (8,), Role.NORM_SCALE),
        ("stem.0.weight", (8, 3, 1, 7, 7), Role.CONV3D),
        ("classifier.6.weight", (10, 8), Role.LINEAR),
    ],
    "diffusers": [
        ("conv_in.weight", (8, 4, 3, 3), Role.CONV2D),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", (8, 12), Role.LINEAR),
        ("up_blocks.0.upsamplers.0.conv.weight", (8, 8, 3, 3), Role.CONV2D),
        ("conv_norm_out.weight", (8,), Role.NORM_SCALE),
        ("transformer_blocks.0.scale_shift_table", (6, 8), Role.LAYER_SCALE),
        ("pos_embed.pos_embed", (1, 16, 8), Role.POSITION_TABLE),
        ("quantize.embedding.weight", (32, 4), Role.EMBEDDING),
        ("quant_conv.weight", (8, 8, 1, 1), Role.CONV2D),
        ("double_blocks.0.img_attn.norm.query_norm.scale", (4,), Role.NORM_SCALE),
        ("input_blocks.1.0.in_layers.0.weight", (8,), Role.NORM_SCALE),
        ("input_blocks.1.1.qkv.weight", (24, 8, 1), Role.FUSED_QKV),
        ("temporal_transformer.pos_encoder.pe", (1, 32, 8), Role.POSITION_TABLE),
        ("alphas_cumprod", (1000,), Role.BUFFER),
    ],
    "adapters": [
        ("base_model.model.q_proj.lora_A.weight", (4, 16), Role.LORA_A),
        ("base_model.model.q_proj.lora_A.default.weight", (4, 16), Role.LORA_A),
        ("base_model.model.conv.lora_B.weight", (8, 4, 1, 1), Role.LORA_B),
        ("base_model.model.emb.lora_embedding_A", (4, 100), Role.LORA_A),
        ("base_model.model.q_proj.lora_magnitude_vector", (16,), Role.WEIGHT_MAGNITUDE),
        ("lora_unet_x_to_q.lora_down.weight", (4, 16), Role.LORA_A),
        ("lora_unet_x_to_q.lora_up.weight", (16, 4), Role.LORA_B),
        ("lora_unet_x_to_q.alpha", (), Role.LAYER_SCALE),
        ("conv_in.lora_layer.down.weight", (4, 4, 3, 3), Role.LORA_A),
        ("base_model.model.k_proj.ia3_l", (16, 1), Role.LAYER_SCALE),
        ("prompt_embeddings", (8, 16), Role.EMBEDDING),
    ],
    "state spaces": [
        ("backbone.layers.0.mixer.D", (32,), Role.STATE_SPACE),
        ("backbone.layers.0.mixer.dt_bias", (4,), Role.STATE_SPACE),
        ("backbone.layers.0.mixer.conv1d.weight", (32, 1, 4), Role.CONV1D),
        ("backbone.layers.0.mixer.x_proj.weight", (12, 32), Role.LINEAR),
        ("layers.0.kernel.log_dt", (16,), Role.STATE_SPACE),
        ("layers.0.kernel.C", (16, 8, 2), Role.STATE_SPACE),
        ("blocks.0.att.time_maa_k", (1, 1, 16), Role.STATE_SPACE),
        ("blocks.0.att.x_r", (1, 1, 16), Role.STATE_SPACE),
        ("temporal_block.rg_lru.recurrent_gate_weight", (2, 8, 8), Role.RECURRENT_INPUT),
    ],
    "recurrent": [
        ("lstm.weight_hr_l0", (2, 4), Role.RECURRENT_HIDDEN),
        ("cell.weight_ih", (16, 3), Role.RECURRENT_INPUT),
        ("lstm/lstm_cell/kernel:0", (3, 16), Role.RECURRENT_INPUT),
        ("lstm/lstm_cell/recurrent_kernel:0", (4, 16), Role.RECURRENT_HIDDEN),
        ("gru/gru_cell/bias:0", (2, 12), Role.BIAS),
    ],
    "experts": [
        ("model.layers.0.block_sparse_moe.experts.3.w1.weight", (24, 16), Role.EXPERTS),
        ("model.layers.0.mlp.experts.7.gate_proj.weight", (24, 16), Role.EXPERTS),
        ("encoder.block.1.layer.1.mlp.experts.expert_0.wi.weight", (24, 16), Role.EXPERTS),
        ("transformer.blocks.0.ffn.experts.mlp.w1", (96, 16), Role.EXPERTS),
        ("model.layers.0.block_sparse_moe.input_linear.weight", (4, 48, 16), Role.EXPERTS),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", (4, 48), Role.BIAS),
        ("model.layers.0.block_sparse_moe.gate.weight", (4, 16), Role.LINEAR),
        ("model.layers.0.mlp.shared_experts.gate_proj.weight", (24, 16), Role.LINEAR),
        ("model.layers.0.mlp.gate.e_score_correction_bias", (4,), Role.BIAS),
    ],
    "keras and flax": [
        ("batch_normalization/gamma:0", (8,), Role.NORM_SCALE),
        ("batch_normalization/moving_variance:0", (8,), Role.BATCHNORM_VAR),
        ("embedding/embeddings:0", (50, 8), Role.EMBEDDING),
        ("p_re_lu/alpha:0", (1, 1, 8), Role.ACTIVATION_SLOPE),
        ("encoder.block_0.attention.query.kernel", (16, 4, 4), Role.LINEAR),
        ("encoder.block_0.ln.scale", (16,), Role.NORM_SCALE),
    ],
    "generators": [
        ("conv1.weight_orig", (8, 3, 3, 3), Role.CONV2D),
        ("conv1.weight_u", (8,), Role.BUFFER),
        ("ups.0.weight_v", (8, 4, 16), Role.CONV_TRANSPOSE),
        ("deconv1.weight", (8, 4, 4, 4), Role.CONV_TRANSPOSE),
        ("decoder.upsample.weight", (8, 8, 2, 2), Role.CONV_TRANSPOSE),
        ("decoder.upsample.weight", (8, 8, 3, 3), Role.CONV2D),
        ("quantizer.layers.0.codebook.embed", (64, 8), Role.EMBEDDING),
        ("quantizer.layers.0.codebook.cluster_size", (64,), Role.BUFFER),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "role"), [habit for habits in LIBRARIES.values() for habit in habits]
)
def test_a_library_s_way_of_naming_is_known(name: str, shape: Shape, role: Role) -> None:
    assert roles_of({name: shape})[name] == role


@pytest.mark.parametrize(
    ("up", "down", "transposed"),
    [((4, 48, 16), (4, 16, 24), False), ((4, 16, 48), (4, 24, 16), True)],
)
def test_stacked_experts_are_read_the_way_their_two_projections_fit(
    up: Shape, down: Shape, transposed: bool
) -> None:
    prefix = "model.layers.0.mlp.experts."
    found = assign_roles([info(f"{prefix}gate_up_proj", up), info(f"{prefix}down_proj", down)])
    assert {role.transposed for role in found.values()} == {transposed}
    rows, cols = matrix_shape(Role.EXPERTS, up, transposed=transposed)
    assert (rows, cols) == ((48, 64) if transposed else (192, 16))


def test_a_bias_says_which_way_round_square_experts_are_stored() -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    shapes: dict[str, Shape] = {name: (4, 16, 32), f"{name}_bias": (4, 32)}
    found = assign_roles([info(key, shape) for key, shape in shapes.items()])
    assert found[name].transposed


def test_a_torch_linear_beside_conv1ds_is_not_turned() -> None:
    shapes: dict[str, Shape] = {
        "h.0.attn.q_proj.weight": (8, 8), "h.0.attn.q_proj.bias": (8,),
        "h.0.mlp.c_fc.weight": (8, 32), "h.0.mlp.c_fc.bias": (32,),
        "h.0.mlp.c_proj.weight": (32, 8), "h.0.mlp.c_proj.bias": (8,),
    }  # fmt: skip
    found = assign_roles([info(name, shape) for name, shape in shapes.items()])
    assert not found["h.0.attn.q_proj.weight"].transposed
    assert found["h.0.mlp.c_proj.weight"].role is Role.CONV1D_TRANSPOSED


def test_wide_integers_without_a_name_are_bookkeeping_and_bytes_are_not() -> None:
    found = assign_roles([info("xyzzy", (8,), "I64"), info("plugh", (8,), "I8")])
    assert (found["xyzzy"].role, found["plugh"].role) == (Role.BUFFER, Role.UNKNOWN)


@pytest.mark.parametrize(("name", "shape", "role"), HABITS)
def test_a_habit_of_naming_is_known(name: str, shape: Shape, role: Role) -> None:
    assert roles_of({name: shape})[name] == role


def test_every_rule_names_ranks_that_exist() -> None:
    assert all(0 <= rank <= 8 for rule in ROLE_RULES for rank in rule.ranks)


def test_a_bias_joins_its_weight_and_takes_its_kind() -> None:
    shapes: dict[str, Shape] = {
        "fc.weight": (5, 7), "fc.bias": (5,), "ln.weight": (7,), "ln.bias": (7,),
        "lstm.weight_ih_l0": (8, 3), "lstm.bias_ih_l0": (8,),
        "attn.in_proj_weight": (9, 3), "attn.in_proj_bias": (9,),
        "dense/Cast/ReadVariableOp:0": (6, 4), "dense/BiasAdd/ReadVariableOp:0": (4,),
        "lonely.bias": (4,),
    }  # fmt: skip
    found = assign_roles([info(name, shape) for name, shape in shapes.items()])
    partners = {name: role.bias_name for name, role in found.items() if role.bias_name}
    assert partners == {
        "fc.weight": "fc.bias",
        "ln.weight": "ln.bias",
        "lstm.weight_ih_l0": "lstm.bias_ih_l0",
        "attn.in_proj_weight": "attn.in_proj_bias",
        "dense/Cast/ReadVariableOp:0": "dense/BiasAdd/ReadVariableOp:0",
    }
    assert found["ln.bias"].role is Role.NORM_SHIFT
    assert found["fc.bias"].role is Role.BIAS
    assert found["lonely.bias"].role is Role.BIAS


def test_a_bias_of_another_size_or_dtype_stays_alone() -> None:
    odd = assign_roles([info("fc.weight", (5, 7)), info("fc.bias", (6,))])
    half = assign_roles([info("fc.weight", (5, 7), "F16"), info("fc.bias", (5,))])
    assert odd["fc.weight"].bias_name == half["fc.weight"].bias_name == ""


def test_an_embedding_with_a_bias_is_a_linear_layer() -> None:
    shapes: dict[str, Shape] = {"embedding.weight": (64, 92), "embedding.bias": (64,)}
    assert roles_of(shapes) == {"embedding.weight": "linear", "embedding.bias": "bias"}


GPT2: dict[str, Shape] = {
    "h.0.attn.c_attn.weight": (8, 24), "h.0.attn.c_attn.bias": (24,),
    "h.0.attn.c_proj.weight": (8, 8), "h.0.attn.c_proj.bias": (8,),
    "h.0.mlp.c_fc.weight": (8, 32), "h.0.mlp.c_fc.bias": (32,),
    "encoder.layer.0.query.weight": (8, 8), "encoder.layer.0.query.bias": (8,),
    "encoder.layer.0.dense.weight": (32, 8), "encoder.layer.0.dense.bias": (32,),
}  # fmt: skip


def test_a_square_conv1d_follows_its_relatives_and_not_the_rest_of_the_model() -> None:
    found = assign_roles([info(name, shape) for name, shape in GPT2.items()])
    assert found["h.0.attn.c_attn.weight"].role is Role.FUSED_QKV
    assert found["h.0.attn.c_proj.weight"].role is Role.CONV1D_TRANSPOSED
    assert found["h.0.attn.c_proj.weight"].transposed
    assert not found["encoder.layer.0.query.weight"].transposed
    assert matrix_shape(Role.FUSED_QKV, (8, 24), transposed=True) == (24, 8)


def test_the_same_names_stored_output_first_are_linear() -> None:
    turned = {name: shape[::-1] for name, shape in GPT2.items() if name.startswith("h.")}
    found = assign_roles([info(name, shape) for name, shape in turned.items()])
    assert found["h.0.attn.c_proj.weight"].role is Role.LINEAR
    assert not found["h.0.attn.c_proj.weight"].transposed


def test_a_transposed_convolution_is_known_by_its_bias() -> None:
    shapes: dict[str, Shape] = {"up.weight": (6, 3, 2, 2), "up.bias": (3,)}
    found = assign_roles([info(name, shape) for name, shape in shapes.items()])["up.weight"]
    assert found.role is Role.CONV_TRANSPOSE
    assert matrix_shape(found.role, (6, 3, 2, 2), transposed=found.transposed) == (3, 24)


def test_a_keras_kernel_has_its_outputs_last() -> None:
    shapes: dict[str, Shape] = {"conv.kernel": (3, 3, 4, 8), "conv.bias": (8,), "fc.kernel": (4, 6)}
    found = assign_roles([info(name, shape) for name, shape in shapes.items()])
    assert found["conv.kernel"].bias_name == "conv.bias"
    assert matrix_shape(Role.CONV2D, (3, 3, 4, 8), transposed=True) == (8, 36)
    assert found["fc.kernel"].transposed


@given(
    st.dictionaries(
        st.text("abwe._/:0189ñ", max_size=14).map(lambda text: text + "weight")
        | st.text(min_size=1, max_size=14),
        st.lists(st.integers(0, 5), max_size=6).map(tuple),
        max_size=8,
    )
)
def test_any_names_and_shapes_get_roles_and_consistent_partners(shapes: dict[str, Shape]) -> None:
    found = assign_roles([info(name, shape) for name, shape in shapes.items()])
    assert found.keys() == shapes.keys()
    for name, role in found.items():
        rows, cols = matrix_shape(role.role, shapes[name], transposed=role.transposed)
        assert rows * cols == math.prod(shapes[name])
        if role.bias_name:
            assert found[role.bias_name].weight_name == name
            assert shapes[role.bias_name] == (rows,)
        if role.weight_name:
            assert found[role.weight_name].bias_name == name


def test_case_and_separators_of_names_do_not_matter() -> None:
    assert match_rule("Encoder/LayerNorm/Scale", (4,), False) is Role.NORM_SCALE
    assert match_rule("onnx::MatMul_309", (4, 4), False) is Role.LINEAR
