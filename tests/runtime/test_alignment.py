"""Where in the reference the motion of each place of the source is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_bundle import blob
from toy_displacement import CELLS, make_displacement_toy

from sonomime.runtime import Animator
from sonomime.runtime.alignment import (
    Framed,
    affine_trend,
    bounded,
    by_landmarks,
    homogeneous,
    is_inside,
    nearby,
    registered,
    size_ratio,
)
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import BackendError, ConfigError, InputError

OWN = own_places(8, 8)


def grid_of(source: Any, reference: Any) -> Any:
    """Of the cells' own places."""
    return by_landmarks(OWN.astype(float), np.array(source), np.array(reference))


def test_offsets_are_blended_by_inverse_square_distance_in_the_source() -> None:
    """Written out for one cell, in pixels of 256: 30 pixels soften it."""
    source, reference = np.array([[0.0, 0.0], [0.5, 0.0]]), np.array([[0.1, 0.0], [0.1, 0.5]])
    cell = OWN[0, 2, 5].astype(float)
    distances = 128 * np.hypot(*(cell - source).T)
    weights = 1 / (distances**2 + 30**2)
    expected = cell - (weights @ (source - reference)) / weights.sum()
    assert grid_of(source, reference)[0, 2, 5] == pytest.approx(expected, abs=1e-6)


def test_the_spread_of_landmarks_says_how_much_larger_an_anatomy_is() -> None:
    source = np.array([[-0.2, 0.1], [0.4, -0.3], [0.1, 0.5]])
    for factor in (0.7, 1.0, 1.5):
        ratio = size_ratio(source, factor * source + [0.1, -0.2])
        assert 0.75 * abs(factor - 1) <= abs(ratio - 1) <= abs(factor - 1)
    assert size_ratio(source, 9 * source) == 2 and size_ratio(9 * source, source) == 0.5
    assert size_ratio(np.zeros((2, 2)), np.zeros((2, 2))) == 1, "coinciding ones say nothing"
    assert grid_of(source, source) == pytest.approx(OWN, abs=1e-7), "equal ones change nothing"


@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 4), min_size=2, max_size=6))
def test_a_grid_is_finite_and_within_bounds(places: list[Any]) -> None:
    source, reference = np.split(np.array(places), 2, axis=1)
    grid = grid_of(source, reference)
    assert np.isfinite(grid).all()
    # Twice as large at most, and no farther off than landmarks are.
    assert np.abs(grid - reference.mean(0)).max() <= 2 * 2 * np.sqrt(2) + 4 * np.sqrt(2) + 4


def test_half_a_pixel_around_the_centres_of_the_outermost_is_inside() -> None:
    assert is_inside(np.array([[-0.5, -0.5], [99.5, 49.5]]), 100, 50).all()
    assert not is_inside(np.array([[-0.6, 0], [0, 49.6]]), 100, 50).any()


CELLS_OF = own_places(12, 16)[0].astype(np.float64)
TREND = np.array([[0.1, -0.05], [0.02, -0.2], [0.3, -0.1]])
SMALL = np.array([[0.08, 0.03], [-0.02, -0.1], [0.1, -0.05]])
SHIFT = np.array([[0, 0], [0, 0], [0, 0.2]])


def moved_by(trend: Any) -> Any:
    return homogeneous(CELLS_OF) @ trend


def test_cells_count_by_their_confidence() -> None:
    displacement, sure = moved_by(TREND), np.ones((12, 16))
    assert affine_trend(displacement, sure) == pytest.approx(TREND, abs=0.003)
    assert (affine_trend(displacement, 0 * sure) == 0).all()
    displacement[:, 8:], sure[:, 8:] = 5.0, 0.0
    assert affine_trend(displacement, sure) == pytest.approx(TREND, abs=0.02)


def test_a_trend_is_held_within_bounds() -> None:
    assert bounded(SMALL) == pytest.approx(SMALL)
    large = bounded(np.array([[3.0, 0], [0, -0.9], [0.6, 0.8]]))
    assert large == pytest.approx(np.array([[1, 0], [0, -0.5], [0.3, 0.4]]))
    for nothing in (np.array([[-1.5, 0], [0, 0], [0, 0]]), SMALL * np.nan):  # it mirrors
        assert (bounded(nothing) == 0).all()


class FakeSession:
    """Finds, round by round, where the source's cells are in the reference: at `targets`; in bars
    beside the picture nothing moves, and that is sure.

    The reference is a ramp of x and one of y as two channels, so that a warped one says where it
    was read: at P(x). What is found is r with P(x + r) = target(x).
    """

    def __init__(self, *targets: Any, sure: float = 1.0, bars: bool = False) -> None:
        self.targets, self.bars = list(targets), bars
        self.sure = np.full((1, 1, 12, 16), sure, np.float32)
        self.references: list[Any] = []
        self.set_reference = self.references.append

    def read(self, name: str) -> Any:
        return {"confidence": self.sure}[name]

    def match(self, source: Any) -> Any:
        planes = self.references[-1][0].astype(np.float64)
        side = planes.shape[-1]
        pixels = own_places(side, side)[0].reshape(-1, 2)
        inner = np.abs(pixels).max(axis=1) < 0.4
        read = np.stack([(plane - 128) / 60 for plane in planes], axis=-1).reshape(-1, 2)
        fit = np.linalg.lstsq(homogeneous(pixels)[inner], read[inner], rcond=None)[0]
        there = CELLS_OF + moved_by(self.targets.pop(0))
        moved = (there - fit[2]) @ np.linalg.inv(fit[:2]) - CELLS_OF
        moved[self.bars & (np.abs(CELLS_OF[..., 0]) > 0.5)] = 0
        return moved.astype(np.float32)


def ramps(width: int = 64, height: int = 64) -> Framed:
    places = own_places(64, 64)[0]
    planes = np.rint(128 + 60 * places.transpose(2, 0, 1))[None].astype(np.uint8)
    return Framed(planes, Letterbox.fit(width, height, 64))


def test_rounds_go_on_where_the_last_one_came_to() -> None:
    """The first finds the size alone, the second the shift: maps one after the other, in this
    order, for the other one ends elsewhere."""
    size, whole = np.array([[0.3, 0], [0, -0.2], [0, 0]]), np.array([[0.3, 0], [0, -0.2], [0.2, 0]])
    session: Any = FakeSession(size, whole)
    picture = ramps()
    grid = registered(session, picture, picture, None)
    assert grid.shape == (1, 12, 16, 2) and grid.dtype == np.float32
    assert grid[0] == pytest.approx(CELLS_OF + moved_by(whole), abs=0.01)
    assert len(session.references) == 3
    for at in (0, -1):  # nothing is known at first; at the end it is the session's again
        assert np.array_equal(session.references[at], picture.planes)


def test_landmarks_begin_and_are_blended_in_at_the_end() -> None:
    source = np.array([[-0.3, 0.2], [0.4, -0.3]])
    reference = 1.4 * source + [0.05, 0.0]
    pair = source, reference
    blind: Any = FakeSession(SMALL, sure=0.0)
    left = nearby(CELLS_OF, source, reference - by_landmarks(source, *pair))
    grid = registered(blind, ramps(), ramps(), pair)[0]
    assert grid == pytest.approx(by_landmarks(CELLS_OF, *pair) + left, abs=1e-6)
    sighted: Any = FakeSession(SMALL)
    grid = registered(sighted, ramps(), ramps(), pair)[0]
    assert len(sighted.references) == 2, "one round"
    missing = nearby(CELLS_OF, source, reference - (source + homogeneous(source) @ SMALL))
    inner = np.abs(CELLS_OF).max(axis=-1) < 0.6
    assert grid[inner] == pytest.approx((CELLS_OF + moved_by(SMALL) + missing)[inner], abs=0.02)


def test_bars_do_not_count() -> None:
    level = ramps(32, 64)
    level.planes[..., 16:48] = 90  # its bars are not black
    for flat in ((level, ramps()), (ramps(), level)):  # it shows nothing, and is not matched
        session: Any = FakeSession()
        assert registered(session, *flat, None)[0] == pytest.approx(CELLS_OF)
        assert session.references == []
    for pair in ((ramps(32, 64), ramps()), (ramps(), ramps(32, 64))):
        session = FakeSession(SHIFT, SHIFT, bars=True)
        wanted = CELLS_OF + moved_by(SHIFT)
        assert registered(session, *pair, None)[0] == pytest.approx(wanted, abs=0.01)


# -- of an Animator --------------------------------------------------------------------------------


@pytest.fixture
def animator(displacement_toy: Path) -> Any:
    with Animator.open(displacement_toy, "cpu", threads=1) as opened:
        yield opened


# Pictures of 128 x 64, which a square of 64 shows at half their size.
SOURCE, REFERENCE, MOVED = (blob(128, x, 0, height=64, width=0.2) for x in (0.5, -0.5, -0.4))
POINTS = np.array([[95.5, 31.5]]), np.array([[31.5, 31.5]])  # where their blobs are


def shift(animator: Animator) -> Any:
    """The shift of the alignment in pixels of those pictures, the same for every cell."""
    shift = animator.read("alignment") - own_places(CELLS, CELLS)
    assert np.ptp(shift, axis=(1, 2)) == pytest.approx(0, abs=1e-6)
    return pytest.approx(shift[0, 0, 0] * 64)


def test_an_alignment_lets_the_source_move_where_its_own_anatomy_is(animator: Animator) -> None:
    made = []
    for align in (False, True):
        animator.reset()
        animator.set_source(SOURCE)
        animator.set_reference(REFERENCE)
        if align:
            animator.align(*POINTS)
        made.append(animator.animate(MOVED))
    assert shift(animator) == [-64, 0]
    before, after = (int(frame.sum(0).argmax()) for frame in made)
    assert abs(before - 47.5) <= 1, "nothing moves where the driver's anatomy is not"
    assert after - before in (2, 3, 4), "0.1 of 32 pixels to the right, as the driver"


def test_the_alignment_is_of_its_pair(animator: Animator) -> None:
    animator.set_source(SOURCE)
    animator.align(*POINTS)
    assert shift(animator) == [0, 0], "waits for the first frame"
    drops: list[Any] = [
        lambda: animator.set_source(SOURCE),
        lambda: animator.set_reference(REFERENCE),
        animator.reset,
        animator.unalign,
    ]
    for drop in drops:
        for _ in range(2):
            animator.animate(REFERENCE)
            assert shift(animator) == [-64, 0]
        drop()
        animator.animate(REFERENCE)
        assert shift(animator) == [0, 0]
        animator.align(*POINTS)


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ([[1, 2]], None), (None, [[1, 2]]), ([[1, 2]], [[1, 2], [3, 4]]), ([1, 2], [1, 2]),
        ([], []), ([["a", 1]], [[1, 2]]), ([[1, np.nan]], [[1, 2]]), ([[1, 2]], [[np.inf, 2]]),
        ([[127.6, 2]], [[1, 2]]), ([[1, 2]], [[1, -0.6]]),
    ],
)  # fmt: skip
def test_impossible_points_change_nothing(animator: Animator, source: Any, reference: Any) -> None:
    animator.set_source(SOURCE)
    animator.set_reference(REFERENCE)
    animator.align(*POINTS)
    with pytest.raises(InputError) as caught:
        animator.align(source, reference)
    assert caught.value.hint
    assert shift(animator) == [-64, 0]


def test_points_outside_of_a_reference_that_comes_later(
    animator: Animator, toy_bundle: Path
) -> None:
    with pytest.raises(InputError):
        animator.align(*POINTS)  # there is no source
    animator.set_source(SOURCE)
    animator.align([[1, 2]], [[100, 100]])
    for take in (animator.set_reference, animator.animate, animator.animate):
        with pytest.raises(InputError):
            take(REFERENCE)
    animator.unalign()
    animator.animate(REFERENCE)
    with Animator.open(toy_bundle, "cpu", threads=1) as keypoints:
        keypoints.set_source(SOURCE)
        for call in (lambda: keypoints.align(*POINTS), lambda: keypoints.find_landmarks(SOURCE)):
            with pytest.raises(ConfigError):
                call()


# -- of an Animator, by its pictures -------------------------------------------------------------

LEFT, RIGHT = blob(64, -0.15, 0), blob(64, 0.25, 0)


@pytest.fixture
def matching(tmp_path: Path) -> Any:
    toy = make_displacement_toy(tmp_path / "sure", landmarks=(), sure=True)
    with Animator.open(toy, "cpu", threads=1) as opened:
        opened.set_source(RIGHT)
        yield opened


def shift_of(matching: Animator) -> Any:
    """Mean of the alignment's shift, (2,)."""
    return (matching.read("alignment") - own_places(CELLS, CELLS)).mean(axis=(0, 1, 2))


def test_an_animator_aligns_by_its_two_pictures(matching: Animator, displacement_toy: Path) -> None:
    """Whatever frames came since the reference; reference and controls are as before."""
    with pytest.raises(ConfigError):
        matching.align(pictures=False)
    matching.session.set_control("scale", 0.0)
    matching.set_reference(LEFT)
    matching.animate(blob(64, 0.1, 0.3))
    centre = matching.read("reference_centre")
    matching.align()
    x, y = shift_of(matching)
    assert -0.4 < x < -0.1 and abs(y) < 0.02
    assert np.array_equal(matching.read("reference_centre"), centre)
    assert matching.read("scale") == 0
    with Animator.open(displacement_toy, "cpu", threads=1) as unsure:
        unsure.set_source(RIGHT)
        with pytest.raises(ConfigError):
            unsure.align()


def test_what_fails_half_way_is_done_again(
    matching: Animator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is gone: the next frame becomes it, and what waited is made then."""
    run, count = matching.session.backend.run, 0

    def failing(stage: str) -> None:
        nonlocal count
        count += stage == "transfer"
        if count == 2:
            count += 1
            raise BackendError("no memory")
        run(stage)

    monkeypatch.setattr(matching.session.backend, "run", failing)
    matching.session.set_control("scale", 0.5)
    matching.align()
    assert (shift_of(matching) == 0).all(), "waits for the first frame"
    with pytest.raises(BackendError):
        matching.animate(LEFT)
    assert matching.read("scale") == 0.5 and not matching.session.has_reference
    assert np.array_equal(matching.animate(LEFT), RIGHT), "nothing has moved yet"
    assert shift_of(matching)[0] < -0.1
    count = 0
    with pytest.raises(BackendError):
        matching.align()
    assert not matching.session.has_reference and (shift_of(matching) == 0).all()
