from io import BytesIO

from ws_pipeline.zoo.barrier_figure import draw_interpolations
from ws_pipeline.zoo.interpolation import Interpolation


def test_each_way_is_a_line_that_says_its_barrier() -> None:
    way = Interpolation(
        shares=(0.0, 0.5, 1.0), losses=(1.0, 3.0, 1.0), accuracies=(0.9, 0.5, 0.9), distance=1.0
    )
    figure = draw_interpolations({"as trained": way, "aligned": way})
    losses, accuracies = figure.axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[1.0, 3.0, 1.0]] * 2
    assert len(accuracies.lines) == 2
    texts = [text.get_text() for text in losses.get_legend().get_texts()]
    assert texts == ["as trained: barrier 2.000", "aligned: barrier 2.000"]
    out = BytesIO()
    figure.savefig(out, format="png")
    assert out.getvalue().startswith(b"\x89PNG")
