import subprocess
import sys

import pytest

from ws_pipeline.backbone.config import (
    BackboneConfig,
    LossConfig,
    TrainingConfig,
    ViewConfig,
    build,
)
from ws_pipeline.errors import ConfigError, Reason


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (BackboneConfig, {"token_size": 0}, r"token_size must lie in \[1, 65536\], got 0"),
        (
            BackboneConfig,
            {"width": 100, "num_heads": 8},
            r"width must be a multiple .* 16, got 100",
        ),
        (LossConfig, {"contrastive_weight": 1.5}, r"contrastive_weight must lie in \[0, 1\]"),
        (LossConfig, {"temperature": float("nan")}, "temperature must lie in .* got nan"),
        (ViewConfig, {"hidden_tokens": 0.99}, "hidden_tokens must lie in"),
        (TrainingConfig, {"num_steps": 0}, "num_steps must lie in"),
        (TrainingConfig, {"num_steps": True}, "num_steps must lie in .* got True"),
        (TrainingConfig, {"betas": (0.9, 1.0)}, "betas must be two numbers"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_field_bound_and_value(kind, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        kind(**values)
    assert caught.value.reason is Reason.INVALID_CONFIG


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("BackboneConfig(position_code='sinus')", "one of learned, summed, banded, got 'sinus'"),
        ("BackboneConfig(normalization='row')", "none, batch, window, token, layer, got 'row'"),
        ("TrainingConfig(num_steps='10')", "num_steps must lie in [1, 1e+08], got '10'"),
        ("TrainingConfig(precision='fp16')", "must be one of auto, fp32, bf16, got 'fp16'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_without_the_type_checker(call: str, message: str):
    code = (
        f"from ws_pipeline.backbone.config import *\ntry: {call}\nexcept Exception as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert message in done.stdout


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(ConfigError, match="unknown field 'widht'; the fields are"):
        build(BackboneConfig, {"widht": 3})


def test_the_config_modules_import_no_torch():
    modules = "ws_pipeline.backbone.config, ws_pipeline.backbone.job, ws_pipeline.backbone.presets"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
