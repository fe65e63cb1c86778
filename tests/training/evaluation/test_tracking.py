"""Tracking: no error for whoever knows the motion, hold's for whoever holds; missing labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.training.data.clip_frames import ClipFrames, load_clip
from sonomime.training.data.dataset import find_clips
from sonomime.training.evaluation.tracking import follow, track, untrackable
from sonomime.training.evaluation.truth import carried, flow_between

from .fakes import (
    MARKS,
    NAMES,
    SIZE,
    Fake,
    Image,
    candidate_of,
    displacement,
    marks,
    render,
)


@pytest.fixture(scope="module")
def clip(phantom: Path) -> ClipFrames:
    """The clip of subject 1, which moves by up to 6 px; every frame is labelled."""
    return load_clip(replace(find_clips([phantom]).clips[1], displacement=None), SIZE, 1)


def judge(fake: Fake, clip: ClipFrames, max_frames: int | None = None) -> dict[str, Any]:
    return follow(candidate_of(fake), clip, max_frames)[0]


def moving(clip: ClipFrames, share: float) -> Fake:
    """Moves by a share of the clip's own motion."""
    field = displacement(1)

    def number(image: Image) -> int:
        at = next(t for t, one in enumerate(clip.frames) if np.array_equal(one, image))
        return int(clip.indices[at])

    return Fake(flow=lambda s, x: share * flow_between(field[number(x)], field[number(s)])[0])


def moved(clip: ClipFrames) -> NDArray[np.float64]:
    """How far each mark is from where it is in the middle frame, (T - 1, P)."""
    true = marks(1)[clip.indices]
    middle = len(true) // 2
    return np.linalg.norm(np.delete(true, middle, axis=0) - true[middle], axis=-1)


def test_the_exact_motion_has_no_error_hold_all_and_half_of_it_half(clip: ClipFrames) -> None:
    result = judge(moving(clip, 1), clip)
    assert (result["frames"], result["driven"]) == (len(clip), len(clip) - 1)
    assert result["errors"]["model"] < 0.1  # the field lies on pixels, the formula between them
    assert result["errors"]["hold"] == pytest.approx(moved(clip).mean(), abs=1e-3)
    assert result["errors"]["hold"] > 1.5 and result["errors"]["flow"] < 1
    assert result["lost"] == 0
    assert judge(Fake(flow=lambda s, x: np.float32(200)), clip, 2)["lost"] == 1
    assert judge(Fake(), clip)["share"]["model"] == pytest.approx(1, rel=1e-3)
    assert judge(moving(clip, 0.5), clip)["share"]["model"] == pytest.approx(0.5, abs=0.05)


def test_source_and_reference_are_the_middle_labelled_frame(clip: ClipFrames) -> None:
    visible = clip.visible.copy()
    visible[4:] = False  # frames 0 to 3 are labelled
    fake = Fake()
    result, (still, *frames) = follow(candidate_of(fake), replace(clip, visible=visible))
    assert np.array_equal(fake.source, clip.frames[2])
    assert np.array_equal(fake.reference, fake.source)
    assert (result["frames"], result["driven"]) == (4, 3)
    assert [frame.number for frame in (still, *frames)] == [2, 0, 1, 3]
    for frame in frames:
        assert frame.found == pytest.approx(still.points, abs=0.05)
    assert judge(Fake(), clip, max_frames=2)["driven"] == 2


def test_a_point_counts_where_both_frames_have_it(clip: ClipFrames) -> None:
    visible = clip.visible.copy()
    visible[0, 1] = False
    gaps = moved(clip)
    gaps[0, 1] = np.nan
    result = judge(Fake(), replace(clip, visible=visible))
    by_frame = np.nanmean(gaps, axis=1)
    assert result["errors"]["hold"] == pytest.approx(by_frame.mean(), abs=1e-3)
    assert result["points"][NAMES[1]]["hold"] == pytest.approx(np.nanmean(gaps[:, 1]), abs=1e-3)
    visible[len(clip) // 2, 1] = False
    assert set(judge(Fake(), replace(clip, visible=visible))["points"]) == {NAMES[0]}


def test_what_cannot_be_tracked_is_said(clip: ClipFrames) -> None:
    assert untrackable(clip) is None
    one = np.zeros_like(clip.visible)
    one[3] = True
    assert untrackable(replace(clip, visible=one)) is not None
    one[3, 1], one[5, 1] = False, True  # another point in another frame
    assert untrackable(replace(clip, visible=one)) is not None


def test_points_are_found_through_a_flow_or_the_nearest_pixel_stands_for_them() -> None:
    flow = np.full((20, 20, 2), (3.0, -2.0), np.float32)
    points = np.array([[10.25, 10.5], [1.0, 5.0]])  # the second is read left of the frame
    z, found = carried(flow, points)
    assert found.tolist() == [True, False]
    assert z[0] == pytest.approx([7.25, 12.5], abs=0.02)
    assert z[1].tolist() == [0, 7]
    assert carried(flow, np.zeros((0, 2)))[0].shape == (0, 2)


def test_the_tracker_neither_drifts_nor_guesses_and_an_unknown_start_stays_unknown() -> None:
    frames = render(2, displacement(2))
    assert np.abs(track(frames[0], frames[[0] * 5], MARKS) - MARKS).max() < 1e-3
    flat = np.full_like(frames[:3], 90)  # nothing to see
    assert np.allclose(track(frames[0], flat, MARKS), MARKS)
    found = track(frames[0], frames, np.array([MARKS[0], (np.nan, np.nan)]))
    assert np.isnan(found[:, 1]).all()
    assert np.allclose(found[:, 0], track(frames[0], frames, MARKS)[:, 0])
