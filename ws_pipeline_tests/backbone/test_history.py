from pathlib import Path

from ws_pipeline.backbone.history import History, read_history, series


def test_points_come_back_in_order(tmp_path: Path):
    history = History(tmp_path / "run", step=0)
    history.metrics(2, {"a": 1.5})
    history.metrics(4, {"a": 0.25, "b": 3.0})
    history.sync()
    points = read_history(tmp_path / "run")
    assert series(points, "a") == ([2, 4], [1.5, 0.25])
    assert series(points, "b") == ([4], [3.0])


def test_a_resumed_run_drops_what_comes_again(tmp_path: Path):
    history = History(tmp_path, step=0)
    for step in (2, 4, 6):
        history.metrics(step, {"a": float(step)})
    resumed = History(tmp_path, step=4)
    resumed.metrics(6, {"a": 60.0})
    assert series(read_history(tmp_path), "a") == ([2, 4, 6], [2.0, 4.0, 60.0])


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path):
    History(tmp_path, step=0).metrics(2, {"a": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "metr')
    assert [point.step for point in read_history(tmp_path)] == [2]


def test_another_process_reads_but_does_not_write(tmp_path: Path):
    History(tmp_path, step=0).metrics(2, {"a": 1.0})
    History(tmp_path, step=0, main=False)
    assert [point.step for point in read_history(tmp_path)] == [2]


def test_no_run_has_no_points(tmp_path: Path):
    assert read_history(tmp_path) == []
