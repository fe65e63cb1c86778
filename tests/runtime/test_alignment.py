"""Where in the reference the motion of each place of the source is read, by landmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_bundle import blob
from toy_displacement import ASIDE, CELLS

from sonomime.runtime import Animator
from sonomime.runtime.alignment import by_landmarks, size_ratio
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import ConfigError, InputError

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


def test_landmarks_are_found_in_pixels_of_the_picture(animator: Animator) -> None:
    animator.set_source(REFERENCE)
    animator.animate(REFERENCE)
    state = animator.read("state")
    found = animator.find_landmarks(SOURCE)
    assert [each.name for each in found] == ["left", "right", "never"]
    assert [each.probability for each in found] == pytest.approx([1, 0.9, 0])
    for each, x in zip(found, (95.5 - 64 * ASIDE, 95.5 + 64 * ASIDE), strict=False):
        assert (each.x, each.y) == pytest.approx((x, 31.5), abs=1.5)
    assert animator.find_landmarks(np.zeros((40, 30), np.uint8))[0].probability == 0
    assert np.array_equal(animator.read("state"), state) and animator.session.has_reference
