import pytest

from ws_pipeline.defs import bars
from ws_pipeline.defs.bars import count_bar
from ws_pipeline.progress import show_bars


def test_a_bar_is_drawn_where_the_command_line_wants_bars(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "DELAY_SECONDS", 0.0)
    with show_bars(), count_bar("scan", "repo") as show:
        show(500, None)
        show(1000, 2000)
    assert "scan" in capsys.readouterr().err
    with count_bar("scan", "repo") as show:
        show(1000, 2000)
    assert capsys.readouterr().err == ""
