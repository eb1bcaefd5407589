import os

import pytest

from ws_pipeline.progress import VARIABLE, hides_bars, show_bars


def test_bars_are_drawn_inside_and_left_to_the_terminal_outside() -> None:
    assert hides_bars() is None
    with show_bars():
        assert hides_bars() is False
    assert hides_bars() is None


def test_what_the_environment_said_before_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(RuntimeError, match="inside"), show_bars():
        raise RuntimeError("inside")
    assert os.environ[VARIABLE] == "0"
