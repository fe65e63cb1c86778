"""The report: means by group, intervals, a short summary, tables; the pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sonomime.training.evaluation import strips
from sonomime.training.evaluation.loop import Frame, Picture
from sonomime.training.evaluation.means import average, over_clips, weighted_ratio
from sonomime.training.evaluation.report import make_record, markdown, summary, table

from .fakes import MARKS, speckle


def tracked(name: str, group: str, model: float) -> dict[str, Any]:
    errors = {"model": model, "hold": 4.0, "flow": 2.0}
    row = {"clip": name, "subject": name, "group": group, "driven": 8, "lost": 0.0}
    return {**row, "errors": errors, "points": {"tip": errors}, "share": {"model": model / 4}}


def record_of(*rows: dict[str, Any]) -> dict[str, Any]:
    settings = {"task": "tracking", "seed": 0}
    return make_record("sonomime evaluate x", {"kind": "fake"}, settings, rows)


ROWS = tracked("a", "heart", 4.0), tracked("b", "heart", 0.0), tracked("c|d", "lung", 3.0)


def test_means_are_over_groups_subjects_and_points_with_intervals() -> None:
    record = record_of(*ROWS)
    assert list(record["means"]) == ["all", "heart", "lung"]
    ratio = record["means"]["all"]["ratio"]["model"]
    assert ratio["mean"] == pytest.approx(7 / 12) and ratio["low"] < 0.4 < 0.6 < ratio["high"]
    assert record["means"]["lung"]["ratio"]["model"]["low"] is None  # one subject
    assert record["means"]["lung"]["share"]["model"] == 0.75
    assert record["points"]["tip"]["errors"]["model"] == pytest.approx(7 / 3)
    whole = record_of(*ROWS, tracked("d", "all", 1.0))["means"]
    assert list(whole) == ["all", "heart", "lung"] and whole["all"]["clips"] == 4


def test_the_summary_is_short_and_has_the_worst_group_first() -> None:
    lines = summary(record_of(*ROWS)).splitlines()
    assert len(lines) < 25
    names = [line.split("  ")[0] for line in lines if line.startswith("model")]
    assert names == ["model, lung", "model, heart", "model, all"]
    alone = summary(record_of(ROWS[2]))
    assert "model, lung" not in alone and "model, all" in alone
    assert "[" in summary(record_of(*ROWS)) and "[" not in alone  # an interval


def test_a_table_has_dashes_but_no_row_of_them_alone() -> None:
    rows = [{"name": "a", "b": {"c": 0.5}}, {"name": "b", "b": None}, {"name": "c", "d": True}]
    lines = table(rows, "name b.c d").splitlines()
    assert lines[2:] == ["| a | 0.500 | - |", "| c | - | yes |"]
    assert table(rows[1:2], "name b.c") == table([], "name") == ""
    assert "c\\|d" in markdown(record_of(*ROWS))


def test_the_mean_leakage_is_judged_as_a_clip_s_is() -> None:
    parts = {"methods": {}, "exact": None, "own_size": None, "subject": "a"}
    seen = {"source": 0.5, "driving": 0.3, "floor": 0.0, "leaks": True}
    hidden = {"source": 0.5, "driving": -0.2, "floor": 0.0, "leaks": False}
    rows = [{"clip": str(i), "leakage": each, **parts} for i, each in enumerate((seen, hidden))]
    for count, leaks in ((1, True), (2, False)):
        means = over_clips(rows[:count], 0)
        assert means["leakage"]["leaks"] is leaks and means["leaking"] == ["0"]


PAIRS = [(a, b) for a in "abcdef" for b in "abcdef" if a != b]


def interval(subjects: Sequence[Sequence[str]], values: Sequence[float], seed: int = 0) -> list:
    """Mean, low and high."""
    return list((weighted_ratio(subjects, values, [1] * len(values), seed) or {}).values())


def test_the_seed_alone_draws_and_clips_of_one_subject_count_as_one() -> None:
    values = np.random.default_rng(0).normal(size=len(PAIRS)).tolist()
    mean, low, high = first = interval(PAIRS, values, 1)
    assert first == interval(PAIRS, values, 1) != interval(PAIRS, values, 2)
    assert low < np.mean(values) < high and mean == pytest.approx(np.mean(values))
    # Fifty copies of what a subject shows say no more than one.
    subjects = [(str(i),) for i in range(8)]
    fifty = interval([each for each in subjects for _ in range(50)], np.repeat(values[:8], 50))
    assert fifty == pytest.approx(interval(subjects, values[:8]))


def test_a_pair_hangs_on_both_subjects() -> None:
    # Driver f alone fails: resampling sources only would never leave it out.
    values = [0.0 if b == "f" else 1.0 for _, b in PAIRS]
    mean, low, high = interval(PAIRS, values)
    assert high == 1 and low < mean
    assert interval([(a,) for a, _ in PAIRS], values)[2] < 1


def test_few_subjects_have_no_interval_and_what_is_not_defined_counts_nowhere() -> None:
    mean, low, high = interval([("a", "b"), ("b", "a")], [0.2, 0.4])
    assert mean == pytest.approx(0.3) and math.isnan(low) and math.isnan(high)
    assert interval([("a",)], [math.nan]) == interval([], []) == []
    units = [("a",), ("b",), ("c",), ("d",)]
    found = weighted_ratio(units, [1, 2, 3, math.nan], [2, 4, 6, 1], seed=0)
    assert found == {"mean": 0.5, "low": pytest.approx(0.5), "high": pytest.approx(0.5)}
    # A draw without the one unit that moves has no ratio, and does not count.
    still = weighted_ratio(units, [1, 0, 0, 0], [2, 0, 0, 0], seed=0)
    assert still == {"mean": 0.5, "low": pytest.approx(0.5), "high": pytest.approx(0.5)}
    rows = [{"a": {"b": 1.0, "c": math.nan}}, {"a": {"b": math.nan, "c": math.nan}}, {"a": {}}]
    assert average(rows)["a"] == {"b": 1, "c": pytest.approx(math.nan, nan_ok=True)}


STILL = speckle(seed=9)


def drawn(
    points: np.ndarray | None = None, truth: Picture | None = None, source: Picture = STILL
) -> strips.Sketch:
    """Five frames that were predicted perfectly."""
    frames = []
    for t in range(5):
        image = speckle(seed=t)
        frame = Frame(t, image, truth, points, points)
        frame.prediction, frame.flow = image, np.zeros((*image.shape, 2), np.float32)
        frames.append(frame)
    return strips.Sketch(source, frames, points)


def strip_of(sketch: strips.Sketch) -> Picture:
    return strips.pictures("a", sketch)[0]


def tiles(strip: Picture, rows: int, columns: int) -> np.ndarray:
    """(rows, height, columns, width, 3) of a strip of one block."""
    height, width = strips.TILE + 24, strips.TILE + 8
    assert strip.shape == (20 + rows * height + 4, columns * width, 3)
    return strip[20:-4].reshape(rows, height, columns, width, 3).astype(int)


def colours(body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which tiles have the green of true points, and the orange of found ones."""
    green = (body == (90, 230, 90)).all(-1).any(axis=(1, 3))
    return green, ((body[..., 0] - body[..., 2]) > 120).any(axis=(1, 3))


def test_a_clip_that_drives_itself_has_no_difference_for_a_copy() -> None:
    sketch = drawn()
    for frame in sketch.own:
        frame.truth = frame.driving
    strip, line = strips.pictures("a", sketch)
    body = tiles(strip, 4, 6)[:, 20:-4, :, 4:-4]
    assert np.array_equal(body[0, :, 1:], body[1, :, 1:]) and not body[2, :, 1:].any()
    assert not np.array_equal(body[0, :, 0], body[0, :, 1])
    assert line.shape[1] == 5 * (strips.TILE + 8)  # the source, and two of the first and the last
    two = sketch._replace(other_title="b", other=sketch.own)
    both, longer = strips.pictures("é", two)
    assert both.shape[0] > strip.shape[0] and longer.shape[1] > line.shape[1]
    one, three = strips.overview([line]), strips.overview([line, longer, line])
    assert three.shape[0] > one.shape[0] and three.shape[1] > one.shape[1]


def test_points_are_shown_on_predictions_beside_a_truth_and_else_on_driving_frames() -> None:
    green, orange = colours(tiles(strip_of(drawn(MARKS, STILL)), 5, 6))
    assert green[0].tolist() == [True] + [False] * 5  # the source's, none on driving frames
    assert green[1:3, 1:].all() and not green[3:].any()
    assert orange[1, 1:].all() and not orange[2].any()
    colour = np.repeat(STILL[..., None], 3, axis=2)
    green, orange = colours(tiles(strip_of(drawn(MARKS, source=colour)), 3, 6))  # tracking
    assert green[0].all() and orange[0].tolist() == [False] + [True] * 5
    assert not green[1:].any()
    detected = drawn(MARKS)
    for frame in detected.own:
        frame.prediction = frame.flow = None
    strip, line = strips.pictures("a", detected)
    green, orange = colours(tiles(strip, 1, 5))  # nothing is driven, so there is no source
    assert green.all() and orange.all() and line.shape[1] == 2 * (strips.TILE + 8)
    wild = np.array([[np.nan, 3.0], [1e9, -1e9]])
    assert not colours(tiles(strip_of(drawn(wild, STILL)), 5, 6))[0].any()


def test_no_motion_is_dark_and_a_shift_bright() -> None:
    flow = np.zeros((16, 16, 2), np.float32)
    still, moved = strips.show_flow(flow), strips.show_flow(flow + 3)
    assert still.shape == (strips.TILE, strips.TILE, 3)
    assert np.median(moved) > 2 * np.median(still)


def test_names_of_files_are_plain() -> None:
    assert strips.strip_name(4, "clips/a b.mp4") == "004_a_b.mp4.png"
    assert strips.strip_name(0, "/data/frames/") == "000_frames.png"
    assert "/" not in strips.strip_name(0, "..\\x/../é:y.mov")
