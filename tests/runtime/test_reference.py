"""Which driving frame is the reference; what keypoints say of scale and pose."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from arithmetic_chain import CHAIN, Arithmetic
from toy_bundle import blob

from sonomime.runtime import Animator
from sonomime.runtime.bundle.manifest import KeypointControl
from sonomime.runtime.media.frames import Image
from sonomime.runtime.options import hull_area, hull_scale
from sonomime.runtime.readers.reading import Frame
from sonomime.runtime.readers.source import FrameSource
from sonomime.runtime.reference import CANDIDATES, choose_reference, reference_distance
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import ConfigError, InputError


def blobs(xs: Sequence[float]) -> list[Image]:
    return [blob(80, x, 0, height=60) for x in xs]


def clip(images: Sequence[Any]) -> Any:
    """A FrameSource in memory, of pictures or of the places of their blobs."""
    shown = [blobs([x])[0] if isinstance(x, float) else x for x in images]
    clip = MagicMock(spec=FrameSource, path=Path("clip"), count_hint=None)
    clip.__iter__.side_effect = lambda: (Frame(i, i / 25, x) for i, x in enumerate(shown))
    return clip


@pytest.fixture
def animator(displacement_toy: Path) -> Any:
    with Animator.open(displacement_toy, "cpu", threads=1) as opened:
        opened.set_source(blob(64, 0, 0))
        yield opened


def test_the_best_reference_is_in_the_middle_of_the_motion(animator: Animator) -> None:
    index, image = choose_reference(animator, clip([-0.4, -0.3, 0.35, 0.02, 0.4]), "best")
    assert index == 3 and image is not None and image.shape == (60, 80)
    assert animator.session.has_reference
    assert animator.read("reference_centre")[0, 0] == pytest.approx(0.02, abs=0.01)
    assert not animator.read("state").any()
    assert choose_reference(animator, clip([0.2]), "best")[0] == 0


def test_of_a_long_clip_evenly_spaced_frames_are_tried(
    animator: Animator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    matched: list[Any] = []
    session = animator.session
    take, match = session.set_reference, session.match
    monkeypatch.setattr(session, "set_reference", lambda *a: (tried.append(a), take(*a))[1])
    monkeypatch.setattr(session, "match", lambda *a: (matched.append(a), match(*a))[1])
    index, _ = choose_reference(animator, clip(np.linspace(-0.5, 0.5, 101).tolist()), "best")
    frames = 13  # and once more, to set the chosen one
    assert len(tried) == frames + 1 <= CANDIDATES and len(matched) == frames * (frames - 1)
    assert index in (40, 48, 56)


def test_frames_that_show_nothing_are_no_candidates(
    animator: Animator, caplog: pytest.LogCaptureFixture
) -> None:
    """A match with them finds no motion at all."""
    black, grey = np.zeros((60, 80), np.uint8), np.full((60, 80), 90, np.uint8)
    shown = [-0.4, 0.1, 0.4]
    assert choose_reference(animator, clip([black, grey, *shown, black]), "best")[0] == 3
    assert caplog.records == []
    for images, reference in (([black, black], "best"), ([black, *shown], "first"), ([grey], 0)):
        choose_reference(animator, clip(images), reference)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        caplog.clear()


def test_the_first_or_a_number(animator: Animator) -> None:
    for reference, wanted in (("first", 0), (1, 1), (0, 0)):
        index, image = choose_reference(animator, clip([0.1, 0.2]), reference)
        assert index == wanted and image is not None
        centre = animator.read("reference_centre")[0, 0]
        assert centre == pytest.approx((0.1, 0.2)[index], abs=0.01)
    with pytest.raises(InputError):
        choose_reference(animator, clip([0.1, 0.2]), 2)


def test_keypoints_choose_the_frame_most_like_the_source(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Animator.open(toy_bundle, "cpu", threads=1) as keypoints:
        keypoints.set_source(blob(64, 0.1, 0))
        shape = keypoints.read("source_kp_value")[0]
        poses = iter([2 * shape[::-1], shape + 0.3, -shape])
        monkeypatch.setattr(keypoints, "detect", lambda _: next(poses))
        assert choose_reference(keypoints, clip([0.1, 0.2, 0.3]), "best")[0] == 1
        assert choose_reference(keypoints, clip([0.2, 0.3]), "first")[1] is None
    with Animator.open(toy_bundle, "cpu", motion="absolute", threads=1) as absolute:
        assert choose_reference(absolute, clip([0.2]), "best") == (None, None)
    chain = replace(CHAIN, control=KeypointControl(3))  # its stages have no keypoints
    with Animator(Session(chain, Arithmetic())) as without, pytest.raises(ConfigError):
        choose_reference(without, clip([0.2, 0.3]), "best")


SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)


def test_areas_that_are_known() -> None:
    assert hull_area(SQUARE) == 4
    assert hull_area(np.concatenate([SQUARE / 2, SQUARE, np.zeros((3, 2))])) == 4
    assert hull_area(SQUARE[:3]) == 2
    assert hull_area(SQUARE[:2]) == hull_area(np.array([[-0.0, 0.0], [0.0, 0.0]])) == 0
    assert hull_area(np.stack([np.linspace(-1, 1, 7)] * 2, -1)) == 0


def test_scale_is_the_ratio_of_sides_within_bounds() -> None:
    for source, reference, scale in (
        (2, 3, 1.5), (3, 2, 2 / 3), (1, 9, 2), (9, 1, 0.5), (1, 1000, 1)  # the last cannot tell
    ):  # fmt: skip
        assert hull_scale(SQUARE / source, SQUARE / reference) == pytest.approx(scale)
    assert hull_scale(SQUARE[:2], SQUARE) == 1


def test_a_pose_is_the_same_wherever_and_however_large() -> None:
    source, *others = np.random.default_rng(3).uniform(-0.5, 0.5, (9, 6, 2)).astype(np.float32)
    assert reference_distance(source, 0.6 * source + [0.3, -0.2]) == pytest.approx(0, abs=1e-9)
    assert min(reference_distance(source, other) for other in others) > 0.1
