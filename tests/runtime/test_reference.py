"""Which driving frame is the reference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from toy_bundle import blob, copy_bundle, rename_tensor

from sonomime.runtime import Animator
from sonomime.runtime.media.frames import Image
from sonomime.runtime.media.video import Frame, FrameSource
from sonomime.runtime.reference import CANDIDATES, choose_reference
from sonomime.runtime.support.errors import ConfigError, InputError


def clip_of(images: Sequence[Image], seekable: bool = True) -> Any:
    """A FrameSource of pictures in memory."""
    clip = MagicMock(spec=FrameSource, path=Path("clip"), count_hint=None, seekable=seekable)
    clip.__iter__.side_effect = lambda: (Frame(i, i / 25, x) for i, x in enumerate(images))
    return clip


@pytest.fixture
def animator(displacement_toy: Path) -> Any:
    with Animator.open(displacement_toy, "cpu", threads=1) as opened:
        opened.set_source(blob(64, 0, 0))
        yield opened


def blobs(xs: Sequence[float]) -> list[Image]:
    return [blob(80, x, 0, height=60) for x in xs]


def clip(xs: Sequence[float], **options: Any) -> Any:
    return clip_of(blobs(xs), **options)


def test_the_best_reference_is_in_the_middle_of_the_motion(animator: Animator) -> None:
    chosen = choose_reference(animator, clip([-0.4, -0.3, 0.35, 0.02, 0.4]), "best")
    assert chosen.index == 3 and chosen.image is not None and chosen.image.shape == (60, 80)
    assert animator.session.has_reference
    assert animator.read("reference_centre")[0, 0] == pytest.approx(0.02, abs=0.01)
    assert not animator.read("state").any()
    assert choose_reference(animator, clip([0.2]), "best").index == 0


def test_of_a_long_clip_evenly_spaced_frames_are_tried(
    animator: Animator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    matched: list[Any] = []
    session = animator.session
    take, match = session.set_reference, session.match
    monkeypatch.setattr(session, "set_reference", lambda *a: (tried.append(a), take(*a))[1])
    monkeypatch.setattr(session, "match", lambda *a: (matched.append(a), match(*a))[1])
    chosen = choose_reference(animator, clip(np.linspace(-0.5, 0.5, 101).tolist()), "best")
    count = len(tried)
    assert count == 13 <= CANDIDATES and len(matched) == count * (count - 1)
    assert chosen.index in (40, 48, 56)


def test_frames_that_show_nothing_are_no_candidates(
    animator: Animator, caplog: pytest.LogCaptureFixture
) -> None:
    """A match with them finds no motion at all."""
    black, grey = np.zeros((60, 80), np.uint8), np.full((60, 80), 90, np.uint8)
    shown = blobs([-0.4, 0.1, 0.4])
    assert choose_reference(animator, clip_of([black, grey, *shown, black]), "best").index == 3
    assert caplog.records == []
    for images, reference in (([black, black], "best"), ([black, *shown], "first"), ([grey], 0)):
        choose_reference(animator, clip_of(images), reference)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        caplog.clear()


def test_the_first_or_a_number(animator: Animator) -> None:
    for reference, index in (("first", 0), (1, 1), (0, 0)):
        chosen = choose_reference(animator, clip([0.1, 0.2]), reference)
        assert chosen.index == index and chosen.image is not None
        centre = animator.read("reference_centre")[0, 0]
        assert centre == pytest.approx((0.1, 0.2)[index], abs=0.01)
    with pytest.raises(InputError):
        choose_reference(animator, clip([0.1, 0.2]), 2)


def test_what_can_be_read_but_once_has_its_first_frame_as_reference(
    animator: Animator, toy_bundle: Path
) -> None:
    live = clip([0.1, 0.2], seekable=False)
    chosen = choose_reference(animator, live, "first")
    assert chosen.index == 0 and chosen.image is None and not animator.session.has_reference
    for reference in (1, "best"):
        with pytest.raises(InputError):
            choose_reference(animator, live, reference)


def test_keypoints_choose_the_frame_most_like_the_source(toy_bundle: Path, tmp_path: Path) -> None:
    """The toy's keypoints have one shape wherever they are, so any will do."""
    with Animator.open(toy_bundle, "cpu", threads=1) as keypoints:
        keypoints.set_source(blob(64, 0.1, 0))
        assert choose_reference(keypoints, clip([0.2, 0.3]), "best").index in (0, 1)
        assert choose_reference(keypoints, clip([0.2, 0.3]), "first").image is None
    folder = copy_bundle(toy_bundle, tmp_path / "toy")
    rename_tensor(folder, "source_kp_value", "source_points")
    with Animator.open(folder, "cpu", threads=1) as without:
        without.set_source(blob(64, 0.1, 0))
        with pytest.raises(ConfigError):
            choose_reference(without, clip([0.2, 0.3]), "best")
    with pytest.raises(ConfigError):
        Animator.open(folder, scale="hull")
    with Animator.open(toy_bundle, "cpu", motion="absolute", threads=1) as absolute:
        assert choose_reference(absolute, clip([0.2]), "best").index is None
