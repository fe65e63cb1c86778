"""Source and reference aligned by matching them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import blob
from toy_displacement import CELLS, make_displacement_toy

from sonomime.runtime import Animator
from sonomime.runtime.alignment import by_landmarks, nearby
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.registration import Framed, affine_trend, bounded, homogeneous, registered
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import BackendError, ConfigError

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

SOURCE, REFERENCE = blob(64, 0.25, 0), blob(64, -0.15, 0)


@pytest.fixture
def animator(tmp_path: Path) -> Any:
    toy = make_displacement_toy(tmp_path / "sure", landmarks=(), sure=True)
    with Animator.open(toy, "cpu", threads=1) as opened:
        opened.set_source(SOURCE)
        yield opened


def shift_of(animator: Animator) -> Any:
    """Mean of the alignment's shift, (2,)."""
    return (animator.read("alignment") - own_places(CELLS, CELLS)).mean(axis=(0, 1, 2))


def test_an_animator_aligns_by_its_two_pictures(animator: Animator, displacement_toy: Path) -> None:
    """Whatever frames came since the reference; reference and controls are as before."""
    with pytest.raises(ConfigError):
        animator.align(pictures=False)
    animator.session.set_control("scale", 0.0)
    animator.set_reference(REFERENCE)
    animator.animate(blob(64, 0.1, 0.3))
    centre = animator.read("reference_centre")
    animator.align()
    x, y = shift_of(animator)
    assert -0.4 < x < -0.1 and abs(y) < 0.02
    assert np.array_equal(animator.read("reference_centre"), centre)
    assert animator.read("scale") == 0
    with Animator.open(displacement_toy, "cpu", threads=1) as unsure:
        unsure.set_source(SOURCE)
        with pytest.raises(ConfigError):
            unsure.align()


def test_what_fails_half_way_is_done_again(
    animator: Animator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is gone: the next frame becomes it, and what waited is made then."""
    run, count = animator.session.backend.run, 0

    def failing(stage: str) -> None:
        nonlocal count
        count += stage == "transfer"
        if count == 2:
            count += 1
            raise BackendError("no memory")
        run(stage)

    monkeypatch.setattr(animator.session.backend, "run", failing)
    animator.session.set_control("scale", 0.5)
    animator.align()
    assert (shift_of(animator) == 0).all(), "waits for the first frame"
    with pytest.raises(BackendError):
        animator.animate(REFERENCE)
    assert animator.read("scale") == 0.5 and not animator.session.has_reference
    assert np.array_equal(animator.animate(REFERENCE), SOURCE), "nothing has moved yet"
    assert shift_of(animator)[0] < -0.1
    count = 0
    with pytest.raises(BackendError):
        animator.align()
    assert not animator.session.has_reference and (shift_of(animator) == 0).all()
