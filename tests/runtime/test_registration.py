"""Source and reference aligned by matching them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import blob
from toy_displacement import CELLS, make_displacement_toy

from sonomime.runtime import Animator
from sonomime.runtime.alignment import by_landmarks
from sonomime.runtime.landmarks import Picture, align_pair
from sonomime.runtime.registration import Landmarks, affine_trend, registered
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import ConfigError, InputError

CELLS_OF = own_places(12, 16)[0].astype(np.float64)
TREND = np.array([[0.1, -0.05], [0.02, -0.2], [0.3, -0.1]])


def moved_by(trend: Any) -> Any:
    return np.concatenate([CELLS_OF, np.ones((12, 16, 1))], axis=-1) @ trend


def test_a_sure_match_gives_its_affine_trend() -> None:
    found = affine_trend(moved_by(TREND), np.ones((12, 16)))
    assert found == pytest.approx(TREND, abs=0.003)


def test_cells_count_as_far_as_they_are_sure() -> None:
    displacement, sure = moved_by(TREND), np.ones((12, 16))
    displacement[:, 8:], sure[:, 8:] = 5.0, 0.0
    assert affine_trend(displacement, sure) == pytest.approx(TREND, abs=0.02)


def test_nothing_alike_is_no_trend() -> None:
    assert (affine_trend(moved_by(TREND), np.zeros((12, 16))) == 0).all()
    doubtful = affine_trend(moved_by(TREND), np.full((12, 16), 0.002))
    assert 0 < np.linalg.norm(doubtful) < 0.6 * np.linalg.norm(TREND)


class FakeSession:
    """Matches two pictures whose anatomies differ by an affine map, which it knows, exactly.

    Pictures are ramps of x and y as two channels, so that a warped one says where it was read.
    """

    def __init__(self, trend: Any, sure: float = 1.0) -> None:
        self.trend, self.sure = trend, np.full((1, 1, 12, 16), sure, np.float32)
        self.references: list[Any] = []

    def read(self, name: str) -> Any:
        assert name == "confidence"
        return self.sure

    def set_reference(self, planes: Any) -> None:
        self.references.append(planes)

    def match(self, source: Any) -> Any:
        """Where a source's cell is in the warped reference W: W reads the reference at P(x), and
        the true place of x is x + trend, so P(x + r) = x + trend; P as an affine fit of W."""
        planes = self.references[-1][0].astype(np.float64)
        side = planes.shape[-1]
        pixels = own_places(side, side)[0].reshape(-1, 2)
        inner = np.abs(pixels).max(axis=1) < 0.4
        read = np.stack([(plane - 128) / 60 for plane in planes], axis=-1).reshape(-1, 2)
        basis = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
        fit = np.linalg.lstsq(basis[inner], read[inner], rcond=None)[0]
        there = CELLS_OF + moved_by(self.trend)
        return ((there - fit[2]) @ np.linalg.inv(fit[:2]) - CELLS_OF).astype(np.float32)


def ramps(side: int = 64) -> Any:
    places = own_places(side, side)[0]
    return np.rint(128 + 60 * places.transpose(2, 0, 1))[None].astype(np.uint8)


SMALL = np.array([[0.08, 0.03], [-0.02, -0.1], [0.1, -0.05]])


def test_rounds_add_up_to_where_the_anatomy_is() -> None:
    session: Any = FakeSession(SMALL)
    reference = ramps()
    grid = registered(session, ramps(), reference, None)
    assert grid.shape == (1, 12, 16, 2) and grid.dtype == np.float32
    assert grid[0] == pytest.approx(CELLS_OF + moved_by(SMALL), abs=0.01)
    assert len(session.references) == 3
    assert np.array_equal(session.references[0], reference), "nothing is known at first"
    assert np.array_equal(session.references[-1], reference), "it is the session's at the end"


def test_landmarks_count_as_they_are() -> None:
    """What the pictures say otherwise, at the landmarks themselves, gives way."""
    source = np.array([[-0.2, 0.1], [0.3, -0.2]])
    landmarks = Landmarks(source, source + np.array([[0.2, 0.0], [0.1, 0.1]]))
    by_points = by_landmarks(CELLS_OF, *landmarks)
    blind: Any = FakeSession(SMALL, sure=0.0)
    grid = registered(blind, ramps(), ramps(), landmarks)[0]
    assert np.abs(grid - by_points).max() < 0.05, "only what blending left is added"
    sighted: Any = FakeSession(SMALL)
    grid = registered(sighted, ramps(), ramps(), landmarks)[0]
    at = [np.abs(CELLS_OF - point).sum(axis=-1).argmin() for point in source]
    for index, point, wanted in zip(at, source, landmarks.reference, strict=True):
        cell = CELLS_OF.reshape(-1, 2)[index]
        assert grid.reshape(-1, 2)[index] - cell == pytest.approx(wanted - point, abs=0.06)
    assert np.abs(grid - by_points).max() > 0.05, "elsewhere the pictures do"


SOURCE, REFERENCE = blob(64, 0.25, 0), blob(64, -0.15, 0)


@pytest.fixture
def animator(tmp_path: Path) -> Any:
    toy = make_displacement_toy(tmp_path / "sure", landmarks=(), sure=True)
    with Animator.open(toy, "cpu", threads=1) as opened:
        yield opened


def shift_of(animator: Animator) -> Any:
    """Mean of the alignment's shift, (2,)."""
    return (animator.read("alignment") - own_places(CELLS, CELLS)).mean(axis=(0, 1, 2))


@pytest.mark.parametrize("between", [[], [blob(64, 0.1, 0.3)]])
def test_an_animator_aligns_by_its_two_pictures(animator: Animator, between: list[Any]) -> None:
    """Whatever frames came since the reference."""
    animator.set_source(SOURCE)
    animator.set_reference(REFERENCE)
    for frame in between:
        animator.animate(frame)
    animator.align()
    x, y = shift_of(animator)
    assert -0.4 < x < -0.1 and abs(y) < 0.02


def test_an_alignment_by_pictures_waits_for_the_first_frame(animator: Animator) -> None:
    animator.set_source(SOURCE)
    animator.align()
    assert (shift_of(animator) == 0).all()
    first = animator.animate(REFERENCE)
    assert shift_of(animator)[0] < -0.1
    assert np.array_equal(first, SOURCE), "nothing has moved yet"
    animator.set_source(SOURCE)
    animator.animate(REFERENCE)
    assert (shift_of(animator) == 0).all(), "it was that source's"


def test_reference_and_controls_are_as_before(animator: Animator) -> None:
    animator.set_source(SOURCE)
    animator.session.set_control("scale", 0.0)
    animator.set_reference(REFERENCE)
    centre = animator.read("reference_centre")
    animator.align()
    assert np.array_equal(animator.read("reference_centre"), centre)
    assert shift_of(animator)[0] < -0.1, "no control counts while two pictures are matched"
    animator.animate(REFERENCE)
    assert (animator.read("displacement") == 0).all() and animator.read("scale") == 0


def test_unalign_and_what_cannot_be(animator: Animator, displacement_toy: Path) -> None:
    animator.set_source(SOURCE)
    animator.set_reference(REFERENCE)
    animator.align()
    animator.unalign()
    assert np.array_equal(animator.read("alignment"), own_places(CELLS, CELLS))
    with pytest.raises(ConfigError) as caught:
        animator.align(pictures=False)
    assert caught.value.hint
    with pytest.raises(InputError):
        animator.align([[1, 2]])
    with Animator.open(displacement_toy, "cpu", threads=1) as unsure:
        unsure.set_source(SOURCE)
        with pytest.raises(ConfigError):
            unsure.align()


def test_a_pair_is_aligned_by_what_both_show_unless_it_is_not_wanted(
    animator: Animator, tmp_path: Path
) -> None:
    animator.set_source(SOURCE)
    found = align_pair(animator, "auto", Picture(SOURCE), None)
    animator.animate(REFERENCE)
    assert found.names == () and shift_of(animator)[0] < -0.1, "a stream can be aligned too"
    animator.reset()
    animator.set_source(SOURCE)
    asked = align_pair(animator, "none", Picture(SOURCE), Picture(REFERENCE))
    animator.animate(REFERENCE)
    assert asked.said != found.said
    assert np.array_equal(animator.read("alignment"), own_places(CELLS, CELLS))
    path = tmp_path / "landmarks.csv"
    path.write_text("image,keypoint,x,y\nsource,a,39,31\nreference,a,27,31\n", encoding="utf-8")
    both = align_pair(animator, path, Picture(SOURCE), Picture(REFERENCE))
    assert both.names == ("a",) and found.said.removeprefix("aligned by ") in both.said
