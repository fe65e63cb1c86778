"""The Animator on a toy whose bright blob follows the driving blob."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.support.errors import BackendError, InputError

Image = NDArray[np.uint8]
CENTRE = blob(64, 0, 0)


def centre(image: Image) -> tuple[float, float]:
    """Where the brightness of a picture lies, (x, y) in [-1, 1]."""
    grey = image if image.ndim == 2 else image.sum(-1)
    height, width = grey.shape
    xs = (2 * np.arange(width) + 1) / width - 1
    ys = (2 * np.arange(height) + 1) / height - 1
    total = grey.sum()
    return float((grey * xs).sum() / total), float((grey * ys[:, None]).sum() / total)


@pytest.fixture
def animator(toy_bundle: Path) -> Iterator[Animator]:
    with Animator.open(toy_bundle) as opened:
        opened.set_source(CENTRE)
        yield opened


def test_relative_motion_moves_the_source_as_the_driving_moved(animator: Animator) -> None:
    animator.set_source(blob(64, 0.1, -0.1))
    first = animator.animate(blob(64, -0.3, 0.2))
    assert centre(first) == pytest.approx((0.1, -0.1), abs=0.02), "the first is the reference"
    moved = animator.animate(blob(64, -0.1, 0.3))
    assert centre(moved) == pytest.approx((0.3, 0.0), abs=0.02)
    assert moved.shape == (64, 64) and moved.dtype == np.uint8


def test_absolute_motion_takes_the_drivings_place(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, motion="absolute") as animator:
        animator.set_source(blob(64, 0.1, -0.1))
        moved = animator.animate(blob(64, -0.3, 0.2))
        assert centre(moved) == pytest.approx((-0.3, 0.2), abs=0.02)


def test_a_reference_that_was_set_stays_until_reset(animator: Animator) -> None:
    animator.set_reference(CENTRE)
    for _ in range(2):  # a new source keeps it
        animator.set_source(blob(64, 0.1, 0.1))
        assert centre(animator.animate(blob(64, 0.2, 0))) == pytest.approx((0.3, 0.1), abs=0.02)
    animator.reset()
    assert centre(animator.animate(blob(64, 0.2, 0))) == pytest.approx((0.1, 0.1), abs=0.02)


def test_scale_multiplies_relative_motion(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, scale=0.5) as animator:
        animator.set_source(CENTRE)
        animator.animate(CENTRE)
        assert centre(animator.animate(blob(64, 0.4, 0))) == pytest.approx((0.2, 0), abs=0.02)
    with Animator.open(toy_bundle, scale="hull") as animator:
        animator.set_source(CENTRE)
        for _ in range(2):  # with every reference again
            animator.animate(CENTRE)
            assert animator.read("scale")[0] == pytest.approx(1, abs=1e-5), "hulls are equal"
            animator.reset()
            animator.session.backend.write("scale", 9)


@pytest.mark.parametrize(("seconds", "step"), [(1.0, 1.0), (0.1, 0.1), (None, 1 / 30)])
def test_smoothing_follows_slowly_and_by_real_time(
    toy_bundle: Path, seconds: float | None, step: float
) -> None:
    with Animator.open(toy_bundle, motion="absolute", smooth=(1.0, 0.0)) as animator:
        animator.set_source(CENTRE)
        animator.animate(CENTRE, None if seconds is None else 5.0)
        frame = animator.animate(blob(64, 0.4, 0), None if seconds is None else 5.0 + seconds)
    rate = 2 * np.pi * step
    assert centre(frame)[0] == pytest.approx(0.4 * rate / (rate + 1), abs=0.02)


def test_smoothing_starts_afresh_with_a_new_source_reference_or_clip(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, motion="absolute", smooth=True) as animator:
        begins: list[Callable[[], None]] = [
            lambda: animator.set_source(CENTRE),
            lambda: animator.set_reference(CENTRE),
            animator.reset,
        ]
        for begin in begins:
            begin()
            assert not animator.read("state").any()
            assert centre(animator.animate(blob(64, 0.4, 0)))[0] == pytest.approx(0.4, abs=0.02)
            assert centre(animator.animate(blob(64, -0.4, 0)))[0] > -0.3
            assert np.array_equal(animator.read("state"), animator.read("next_state"))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_grey_and_colour(tmp_path: Path, channels: int) -> None:
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    with Animator.open(folder, motion="absolute") as animator:
        for height, width, colours in ((64, 64, 1), (40, 90, 3), (300, 200, 1), (8, 11, 3)):
            image = blob(width, 0, 0, colours, height=height, width=0.4)
            animator.set_source(image)
            made = animator.animate(image)
            assert made.shape == ((64, 64) if channels == 1 else (64, 64, 3))
            restored = animator.letterbox.restore(made)
            assert restored.shape[:2] == (height, width)
            assert centre(restored) == pytest.approx((0, 0), abs=0.05)
        image = blob(64, 0, 0, channels)
        animator.set_source(image)
        assert np.abs(animator.animate(image).astype(int) - image).max() <= 1, "channels in order"


def test_a_frame_belongs_to_the_caller(animator: Animator) -> None:
    first = animator.animate(CENTRE)
    kept = first.copy()
    animator.animate(blob(64, 0.5, 0))
    assert np.array_equal(first, kept)
    first[...] = 0
    assert animator.read("frame").any()


def test_read_detect_and_timings(animator: Animator) -> None:
    animator.animate(CENTRE)
    assert animator.read("deformation").shape == (1, 64, 64, 2)
    assert list(animator.timings) == ["keypoints", "transfer", "motion", "generator"]
    assert all(seconds > 0 for seconds in animator.timings.values())
    assert animator.detect(blob(64, 0.25, 0)).mean(0) == pytest.approx((0.25, 0), abs=0.01)


def test_calls_without_a_source_and_after_closing(toy_bundle: Path) -> None:
    animator = Animator.open(toy_bundle)
    for early in (lambda: animator.animate(CENTRE), lambda: animator.letterbox):
        with pytest.raises(InputError):
            early()
    animator.set_source(CENTRE)
    with pytest.raises(InputError):
        animator.set_source(CENTRE.astype(np.float32))
    with pytest.raises(InputError):
        animator.animate(CENTRE)  # no half source is left
    animator.close()
    animator.close()
    calls: list[Callable[[], object]] = [
        lambda: animator.set_source(CENTRE), lambda: animator.set_reference(CENTRE),
        lambda: animator.animate(CENTRE), lambda: animator.detect(CENTRE), animator.reset,
        lambda: animator.read("frame"), animator.unalign, lambda: animator.find_landmarks(CENTRE),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(BackendError):
            call()


def test_time_increases(animator: Animator) -> None:
    animator.animate(CENTRE, 1.0)
    for timestamp in (1.0, 0.5, float("nan"), float("inf")):
        with pytest.raises(InputError):
            animator.animate(CENTRE, timestamp)
    for timestamp, step in ((1.5, 0.5), (None, 1 / 30)):
        animator.animate(CENTRE, timestamp)
        assert animator.read("dt_seconds")[0] == pytest.approx(step)


def test_threads_are_served_one_after_the_other(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, motion="absolute") as animator:
        animator.set_source(CENTRE)

        def work(x: float) -> float:
            return centre(animator.animate(blob(64, x, 0)))[0]

        xs = [-0.4, 0.4] * 20
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(work, xs)) == pytest.approx(xs, abs=0.03)
