"""The pictures: what is shown where."""

from __future__ import annotations

import numpy as np

from sonomime.training.evaluation import strips
from sonomime.training.evaluation.loop import Frame, Picture

from .fakes import MARKS, speckle

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
