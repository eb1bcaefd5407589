import pytest

from ws_pipeline.errors import ConfigError
from ws_pipeline.evaluation.config import EvaluationConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_bootstrap", 3),
        ("confidence", 1.0),
        ("ks", (0, 5)),
        ("lambdas", (-1.0,)),
        ("lambdas", (float("nan"),)),
        ("seed", -1),
        ("min_test_models", 1),
    ],
)
def test_a_field_out_of_bounds_names_itself_and_the_value(field, value):
    with pytest.raises(ConfigError, match=rf"{field} must lie in .* got"):
        EvaluationConfig(**{field: value})


def test_empty_choices_are_refused():
    with pytest.raises(ConfigError, match="at least one value"):
        EvaluationConfig(targets=())


def test_the_defaults_stand():
    assert EvaluationConfig().ks == (1, 5, 10)
