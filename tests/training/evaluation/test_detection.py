"""Detection: no error for whoever knows the places, the constant answer's for whoever gives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sonomime.runtime.bundle.manifest import KeypointControl, SupervisedKeypoint
from sonomime.runtime.support.errors import ConfigError
from sonomime.training.coordinates import pixels_to_points
from sonomime.training.data.clip_frames import ClipFrames, load_clip
from sonomime.training.data.dataset import find_clips
from sonomime.training.evaluation.candidate import Candidate
from sonomime.training.evaluation.detection import detect, mean_places, undetectable
from sonomime.training.evaluation.loop import Points
from sonomime.training.evaluation.means import over_detections
from sonomime.training.evaluation.tracking import labelled_pixels

from .fakes import NAMES, SIZE, Image


@pytest.fixture(scope="module")
def clips(phantom: Path) -> list[ClipFrames]:
    found = find_clips([phantom]).clips
    return [load_clip(replace(clip, displacement=None), SIZE, 1) for clip in found]


def candidate(clips: list[ClipFrames], off: Points, names: tuple[str, ...] = NAMES) -> Candidate:
    """Its supervised keypoints, in another order than the data's, lie at the true places plus
    ``off``; self-supervised ones come first."""
    true: dict[bytes, Points] = {}
    for clip in clips:
        places = zip(clip.frames, labelled_pixels(clip), strict=True)
        true |= {frame.tobytes(): points for frame, points in places}

    def found(picture: Image) -> Points:
        places = np.concatenate([np.zeros((2, 2)), (true[picture.tobytes()] + off)[::-1]])
        return pixels_to_points(places, np.float64(SIZE))

    supervised = tuple(SupervisedKeypoint(2 + i, name) for i, name in enumerate(names[::-1]))
    chain = SimpleNamespace(control=KeypointControl(4, supervised), geometry="half_pixel")
    animator = SimpleNamespace(session=SimpleNamespace(chain=chain), detect=found)
    return Candidate(animator, animator, {})  # type: ignore[arg-type]


def test_errors_are_distances_from_the_labels_by_name(clips: list[ClipFrames]) -> None:
    off = np.zeros((len(NAMES), 2))
    off[0] = 3, 4
    constant = mean_places(clips)
    row, frames = detect(candidate(clips, off), clips[1], constant)
    assert row["points"][NAMES[0]]["model"] == pytest.approx(5, abs=1e-3)
    assert row["points"][NAMES[1]]["model"] == pytest.approx(0, abs=1e-3)
    assert row["errors"]["model"] == pytest.approx(5 / len(NAMES), abs=1e-3)
    true = labelled_pixels(clips[1])
    gaps = [np.linalg.norm(true[:, i] - constant[name], axis=-1) for i, name in enumerate(NAMES)]
    assert row["errors"]["constant"] == pytest.approx(np.nanmean(gaps), rel=1e-6)
    assert row["driven"] == row["frames"] == len(clips[1])
    assert frames[0].prediction is None and frames[0].found is not None
    few, _ = detect(candidate(clips, off), clips[1], constant, max_frames=2)
    assert few["driven"] == 2
    sums = over_detections([row, few], seed=0)
    errors = sums["errors"]
    assert sums["share"]["model"] == pytest.approx(errors["model"] / errors["constant"])


def test_what_cannot_be_detected(clips: list[ClipFrames]) -> None:
    off = np.zeros((len(NAMES), 2))
    with pytest.raises(ConfigError):
        detect(candidate(clips, off, ()), clips[1], {})
    with pytest.raises(ConfigError) as caught:
        detect(candidate(clips, off, ("other", "another")), clips[1], {})
    assert "other" in caught.value.message and NAMES[0] in caught.value.message
    assert undetectable(clips[1]) is None
    assert undetectable(replace(clips[1], visible=clips[1].visible & False))
