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
