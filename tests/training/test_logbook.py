"""What a run leaves beside its checkpoint, and what stays of it when steps are run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonomime.training import logbook
from sonomime.training.logbook import Logbook, picture_grid
from sonomime.training.loop import train
from sonomime.training.watch import LINES, Watch

from .small_runs import config, make

SETTINGS = config("train.max_steps=20", "loss.adversarial=1.0")
PICTURE = np.zeros((30, 30, 3), np.uint8)
BAD = {"l1": 0.1, "hold": 0.2, "discriminator": 0.0, "adversarial": 1.0}


def book(run: Path, step: int, report: Callable[[str], None] = print) -> Logbook:
    return Logbook(run, step, Watch(SETTINGS), report)


def steps(run: Path, name: str) -> list[int]:
    lines = (run / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_warning_is_said_and_kept_once_even_if_the_run_is_resumed(tmp_path: Path) -> None:
    said: list[str] = []
    first = book(tmp_path, 0, said.append)
    for step in range(1, LINES + 3):
        first.write(step, BAD)
    assert len(said) == 1 and steps(tmp_path, "warnings") == [LINES]
    (kept,) = (tmp_path / "warnings.jsonl").read_text().splitlines()
    assert json.loads(kept).keys() == {"step", "name", "what", "advice"}
    book(tmp_path, LINES + 1, said.append).write(LINES + 2, BAD)
    assert len(said) == 1 and steps(tmp_path, "log") == [*range(1, LINES + 3)]
    again = book(tmp_path, LINES - 1, said.append)  # before it was said
    assert steps(tmp_path, "warnings") == []
    again.write(LINES, BAD)
    assert len(said) == 2 and steps(tmp_path, "warnings") == [LINES]


def test_lines_of_steps_that_are_run_again_go(tmp_path: Path) -> None:
    first = book(tmp_path, 0)
    for step in (1, 2, 3):
        first.look(step, PICTURE, {"displacement_max": 9.0})
        first.write(step, {"l1": 0.1234567, "hold": 1.0})
    with (tmp_path / "probe.jsonl").open("a") as file:
        file.write('{"step": 4, "displ')
    book(tmp_path, 2)
    assert steps(tmp_path, "log") == steps(tmp_path, "probe") == [1, 2]
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["l1"] == 0.123457
    book(tmp_path, 0)
    assert steps(tmp_path, "log") == steps(tmp_path, "probe") == []


def test_a_log_that_is_damaged_is_gone_on_with(tmp_path: Path) -> None:
    """Its other lines stay."""
    first = book(tmp_path, 0)
    for step in (1, 2):
        first.write(step, BAD)
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines(keepends=True)
    damage = b'\xff\xfe\n[1]\n\0\n{"step": 1, "l1": null, "hold": 9}\n'
    (tmp_path / "log.jsonl").write_bytes(lines[0] + damage + lines[1].rstrip())
    again = book(tmp_path, 2)
    for step in range(3, LINES + 3):
        again.write(step, BAD)
    assert steps(tmp_path, "log") == [1, 1, *range(2, LINES + 3)]
    assert steps(tmp_path, "warnings") == [LINES]


def test_what_a_longer_run_had_not_to_say_a_shorter_one_says(tmp_path: Path) -> None:
    bad = {"l1": 0.3, "hold": 0.2}
    long = Logbook(tmp_path, 0, Watch(config("train.max_steps=1000")), print)
    for step in range(1, LINES + 1):
        long.write(step, bad)
    assert steps(tmp_path, "warnings") == []
    book(tmp_path, LINES).write(LINES + 1, bad)
    assert steps(tmp_path, "warnings") == [LINES + 1]


def test_tensorboard_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(logbook, "_board", lambda *given: Full())
    said: list[str] = []
    with book(tmp_path, 0, said.append) as one:
        one.write(1, BAD)
        one.look(1, PICTURE, {})
    assert len(said) == 1 and "No space" in said[0]
    assert steps(tmp_path, "log") == steps(tmp_path, "probe") == [1]


def test_every_start_is_recorded_but_those_that_came_to_nothing(tmp_path: Path) -> None:
    def starts() -> list[int]:
        return [each["step"] for each in json.loads((tmp_path / "run.json").read_text())["starts"]]

    for step, wanted in ((0, [0]), (0, [0]), (5, [0, 5]), (9, [0, 5, 9]), (5, [0, 5])):
        book(tmp_path, step).begin({"device": "CPU"})
        assert starts() == wanted
    (tmp_path / "run.json").write_text("{")
    book(tmp_path, 5).begin({})
    assert starts() == [5]


@pytest.mark.parametrize("preset", ["ours-ptg", "lite"])
def test_a_run_leaves_all_that_a_report_shows(preset: str, tmp_path: Path) -> None:
    trainer = make(tmp_path, config("train.picture_every=2", preset=preset))
    train(trainer, False, None, print)
    assert steps(tmp_path, "probe") == [1, 2, 4, 4]  # the end looks again
    assert [path.stem for path in sorted((tmp_path / "pictures").iterdir())] == [
        "0000001", "0000002", "0000004",
    ]  # fmt: skip
    facts: dict[str, Any] = json.loads((tmp_path / "run.json").read_text())
    assert facts["config"]["preset"] == preset and facts["config"]["train"]["max_steps"] == 4
    assert facts["data"] == [{"name": "noise", "clips": 0, "subjects": 0}]
    assert facts["weights"] > 0
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_no_name_of_a_subject_is_in_the_record(tmp_path: Path) -> None:
    trainer = make(tmp_path, SETTINGS)
    trainer.data = [{"name": "clips", "clips": {"Anna": ["a.mp4", "b.mp4"], "Ben": ["c.mp4"]}}]
    assert trainer.facts()["data"] == [{"name": "clips", "clips": 3, "subjects": 2}]
    assert "Anna" not in json.dumps(trainer.facts())


def test_points_are_drawn_where_their_geometry_puts_them() -> None:
    """-1 is the border in one, and the middle of the first pixel in the others."""
    black = {"source": np.zeros((1, 1, 64, 64), np.float32)}
    corner = {"source": np.array([[[-1.0, -1.0]]], np.float32)}
    middle = {"source": np.array([[[0.5, 0.5]]], np.float32)}

    def lit(points: Any, geometry: str) -> float:
        return float(picture_grid(black, points, geometry)[22:].sum(axis=-1).astype(bool).sum())

    aligned = picture_grid(black, middle, "fomm_aligned")[22:]
    half = picture_grid(black, middle, "half_pixel")[22:]
    assert lit(corner, "half_pixel") > 0
    ys, xs = np.nonzero(aligned.any(axis=-1))
    assert (xs.mean(), ys.mean()) == pytest.approx((47, 47), abs=0.3)  # 0.75 * 63
    ys, xs = np.nonzero(half.any(axis=-1))
    assert (xs.mean(), ys.mean()) == pytest.approx((48, 48), abs=0.3)  # 0.75 * 64 - 0.5
