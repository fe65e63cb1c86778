"""At a clip's own size: what an enlarged frame lacks, and what a composed one need not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from sonomime.runtime.media.frames import Crop, letterbox
from sonomime.training.data.dataset import ClipFrames, find_clips, load_clip
from sonomime.training.evaluation import reconstruction
from sonomime.training.evaluation.candidate import Candidate, open_candidate
from sonomime.training.evaluation.reconstruction import MOST_FRAMES, at_own_size

from ...toy_bundle import make_toy_bundle
from .fakes import Fake, Image, candidate_of, moving_clip

SIZE, WIDE, HIGH = 64, 180, 120


class Large(Fake):
    """Takes pictures of any size; its frame is the driving one, what it composes the source."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[Any] = []

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        self.frame = frame
        return letterbox(frame, SIZE)[0]

    def compose(self, size: str) -> Image:
        self.sizes.append(size)
        return self.source


class Sharp(Large):
    """Composes the driving frame itself."""

    def compose(self, size: str) -> Image:
        return self.frame


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipFrames:
    """Nine frames of 180 x 120 in a wider picture, one of them twice."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "one").mkdir()
    frames = [frame[:HIGH, :WIDE] for frame in moving_clip(9, 200)]
    for number, frame in enumerate([*frames[:3], frames[2], *frames[3:]]):
        wide = cv2.copyMakeBorder(frame, 5, 0, 10, 0, cv2.BORDER_CONSTANT, value=255)
        cv2.imwrite(str(folder / "one" / f"{number}.png"), wide)
    found = replace(find_clips([folder / "one"]).clips[0], crop=Crop(10, 5, WIDE, HIGH))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return load_clip(found, SIZE, 1)


def with_layers(predictor: Fake) -> Candidate:
    return replace(candidate_of(predictor, SIZE), has_layers=True)


def test_an_enlarged_frame_is_blurred_and_a_composed_one_is_not(clip: ClipFrames) -> None:
    found = at_own_size(with_layers(Sharp()), clip)
    assert found is not None
    assert (found["width"], found["height"], found["driven"]) == (WIDE, HIGH, 8)
    composed, enlarged = found["methods"]["composed"], found["methods"]["enlarged"]
    assert composed["l1_ratio"] == 0 and composed["sharpness"] == pytest.approx(1)
    assert enlarged["sharpness"] < 0.6
    assert 0.1 < enlarged["l1_ratio"] < 0.9  # the right picture, but for its blur
    alone = at_own_size(candidate_of(Large(), SIZE), clip, max_frames=3)
    assert alone is not None
    assert list(alone["methods"]) == ["enlarged"] and alone["driven"] == 3 <= MOST_FRAMES


def test_a_held_source_has_ratio_1(clip: ClipFrames) -> None:
    large = Large()
    found = at_own_size(with_layers(large), clip)
    assert found is not None and found["methods"]["composed"]["l1_ratio"] == 1
    assert found["methods"]["composed"]["sharpness"] == pytest.approx(1, abs=0.1)
    assert set(large.sizes) == {"source"}
    assert large.source.shape == (HIGH, WIDE)
    assert large.reference is large.source
    assert large.source.max() < 255 or large.source[0, 0] < 255  # the crop left the border out


def test_a_clip_that_the_model_sees_whole_or_that_is_too_large_to_be_composed_has_none(
    clip: ClipFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = load_clip(clip.clip, WIDE, 1)
    assert at_own_size(with_layers(Large()), small) is None
    monkeypatch.setattr(reconstruction, "MOST_SIDE", WIDE - 1)
    assert at_own_size(candidate_of(Large(), SIZE), clip) is None


def test_a_bundle_with_layers_composes(clip: ClipFrames, tmp_path: Path) -> None:
    with open_candidate(make_toy_bundle(tmp_path / "toy", SIZE, layers=True)) as candidate:
        found = at_own_size(candidate, clip, max_frames=2)
    assert found is not None
    # Its layers are neutral: it composes the source, warped a little.
    assert (
        found["methods"]["composed"]["sharpness"] > 0.8 > found["methods"]["enlarged"]["sharpness"]
    )
