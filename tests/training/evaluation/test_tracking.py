"""Tracking: no error for whoever knows the motion, hold's for whoever holds; missing labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.training.data.dataset import ClipFrames, find_clips, load_clip
from sonomime.training.evaluation.ground_truth.fields import carried, flow_between
from sonomime.training.evaluation.metrics import pixel_grid
from sonomime.training.evaluation.tracking import follow, untrackable

from .fakes import Fake, Image, candidate_of
from .phantoms import COUNT, NAMES, SIZE, displacement, marks


class Exact(Fake):
    """Knows the motion of a clip to its source; `share` of it."""

    def __init__(self, clip: ClipFrames, subject: int, share: float = 1.0) -> None:
        super().__init__()
        self.clip, self.field, self.share = clip, displacement(subject), share
        self.flow = np.zeros((SIZE, SIZE, 2), np.float32)

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        s, d = (self._number(image) for image in (self.source, frame))
        self.flow = flow_between(self.field[d], self.field[s])[0]
        return frame

    def _number(self, image: Image) -> int:
        at = next(t for t, one in enumerate(self.clip.frames) if np.array_equal(one, image))
        return int(self.clip.indices[at])

    def read(self, name: str) -> NDArray[np.float32]:
        return ((2 * (pixel_grid(SIZE, SIZE) + self.share * self.flow) + 1) / SIZE - 1)[None]


@pytest.fixture(scope="module")
def clip(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipFrames:
    """The clip of subject 1, which moves by up to 6 px; every frame is labelled."""
    found = replace(find_clips([phantom]).clips[1], displacement=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return load_clip(found, SIZE, 1)


def judge(predictor: Any, clip: ClipFrames, max_frames: int | None = None) -> dict[str, Any]:
    return follow(candidate_of(predictor, SIZE), clip, max_frames)[0]


def moved(clip: ClipFrames) -> NDArray[np.float64]:
    """How far each mark is from where it is in the middle frame, (T - 1, P)."""
    true = marks(1)[clip.indices]
    middle = len(true) // 2
    return np.linalg.norm(np.delete(true, middle, axis=0) - true[middle], axis=-1)


def test_the_exact_motion_has_no_error(clip: ClipFrames) -> None:
    result = judge(Exact(clip, 1), clip)
    assert (result["frames"], result["driven"]) == (len(clip), len(clip) - 1)
    assert result["errors"]["model"] < 0.1  # the field lies on pixels, the formula between them
    assert result["errors"]["hold"] == pytest.approx(moved(clip).mean(), abs=1e-3)
    assert result["errors"]["hold"] > 1.5 and result["errors"]["flow"] < 1
    assert result["lost"] == 0


def test_hold_and_half_of_the_motion(clip: ClipFrames) -> None:
    held = judge(Fake(), clip)
    assert held["errors"]["model"] == pytest.approx(held["errors"]["hold"], rel=1e-3)
    half = judge(Exact(clip, 1, 0.5), clip)
    assert half["errors"]["model"] / half["errors"]["hold"] == pytest.approx(0.5, abs=0.05)


def test_source_and_reference_are_the_middle_labelled_frame(clip: ClipFrames) -> None:
    visible = clip.visible.copy()
    visible[4:] = False
    part = replace(clip, visible=visible)  # frames 0 to 3 are labelled
    fake = Fake()
    result = judge(fake, part)
    assert np.array_equal(fake.source, clip.frames[2])
    assert fake.reference is not None and np.array_equal(fake.reference, fake.source)
    assert (result["frames"], result["driven"]) == (4, 3)
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
    one[3, 1] = False
    one[5, 1] = True  # another point in another frame
    assert untrackable(replace(clip, visible=one)) is not None


def test_points_are_found_through_a_flow_or_the_nearest_pixel_stands_for_them() -> None:
    flow = np.full((20, 20, 2), (3.0, -2.0), np.float32)
    points = np.array([[10.25, 10.5], [1.0, 5.0]])  # the second is read left of the frame
    z, found = carried(flow, points)
    assert found.tolist() == [True, False]
    assert z[0] == pytest.approx([7.25, 12.5], abs=0.02)
    assert z[1].tolist() == [0, 7]
    assert carried(flow, np.zeros((0, 2)))[0].shape == (0, 2)


def test_pictures_have_the_source_first_and_what_was_found(clip: ClipFrames) -> None:
    _, frames = follow(candidate_of(Fake(), SIZE), clip)
    assert [frame.step.number for frame in frames] == [COUNT // 2, 0, 2, 5, 6, 8]
    start = frames[0].step.points
    assert start is not None
    for frame in frames[1:]:
        assert frame.found == pytest.approx(start, abs=0.05)
