"""Driving clips with predictors whose faults are known: each measure, exact fields, leakage."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sonomime.runtime.media.frames import Crop, letterbox
from sonomime.training.data.clip_frames import ClipFrames, load_clip
from sonomime.training.data.dataset import Clip, find_clips
from sonomime.training.evaluation import tasks
from sonomime.training.evaluation.candidate import open_candidate
from sonomime.training.evaluation.loop import SAMPLES
from sonomime.training.evaluation.metrics import warp_by_flow

from ...toy_bundle import make_toy_bundle
from .fakes import (
    COUNT,
    NAMES,
    SIZE,
    Fake,
    Image,
    candidate_of,
    clip_of,
    copy,
    displacement,
    marks,
    moving_clip,
    render,
    sector,
    speckle,
    write_clip,
)


def test_the_source_frame_never_drives() -> None:
    numbers = {(30, 3): [0, 14, 29], (2, None): [0], (9, 1): [0], (4, 3): [0, 1, 3]}
    assert {asked: tasks.driven_frames(*asked) for asked in numbers} == numbers


def measures(frames: Image, picture: Callable[[Image, Image], Image]) -> SimpleNamespace:
    """Those of the frames `picture(source, x)` of a clip."""
    candidate = candidate_of(Fake(picture), frames.shape[1])
    row, _ = tasks.reconstruct(candidate, clip_of(frames))
    return SimpleNamespace(**row["methods"]["model"])


def test_a_held_source_is_one_by_definition() -> None:
    fake = Fake()
    row, samples = tasks.reconstruct(candidate_of(fake), clip_of(moving_clip()))
    model = row["methods"]["model"]
    assert model["l1_ratio"] == 1 and model["low_pass_ratio"] == 1
    assert model == pytest.approx(row["methods"]["hold"], abs=1e-4)
    assert (row["frames"], row["driven"]) == (9, 8)
    assert [sample.number for sample in samples] == [0, 2, 5, 6, 8]
    assert row["exact"] is None and set(row["methods"]) == set(tasks.METHODS)
    assert np.array_equal(fake.source, moving_clip()[4])
    assert np.array_equal(fake.reference, fake.source)


def test_a_copy_in_colour_is_perfect_and_dense_flow_beats_hold() -> None:
    frames = np.repeat(moving_clip(5, 128)[..., None], 3, axis=3)
    row, _ = tasks.reconstruct(candidate_of(Fake(copy), channels=3), clip_of(frames))
    model = row["methods"]["model"]
    assert model.pop("psnr") == pytest.approx(100)
    nothing = {name: model.pop(name) for name in ("l1_ratio", "low_pass_ratio", "l1")}
    assert set(nothing.values()) == {0} and len(model) == 6
    assert list(model.values()) == pytest.approx([1] * 6)
    assert row["methods"]["flow"]["l1_ratio"] < 0.6
    assert row["methods"]["blur"]["l1_ratio"] < 1 and row["mean_flow"] > 2
    one, _ = tasks.reconstruct(candidate_of(Fake(copy)), clip_of(moving_clip()), 1)
    assert one["driven"] == 1 and math.isnan(one["methods"]["model"]["temporal_ratio"])


def test_a_known_translation_is_known_motion() -> None:
    moves = iter([-8, -6, -4, -2, 2, 4, 6, 8])

    def translate(s: Image, x: Image) -> Image:
        flow = np.full((*s.shape, 2), (-next(moves), 0), np.float32)
        return np.asarray(warp_by_flow(s, flow), np.uint8)

    known = measures(moving_clip(size=160), translate)
    assert known.motion_agreement > 0.9
    assert known.farneback_agreement > 0.8
    assert known.temporal_correlation > 0.7  # zeros come in at the border
    assert known.l1_ratio < 0.4


def test_where_little_moves_motion_is_undefined_and_where_nothing_does_each_ratio() -> None:
    little = measures(moving_clip(step=0.3), copy)
    assert math.isnan(little.motion_agreement) and math.isnan(little.farneback_agreement)
    frames = np.repeat(speckle()[None], 5, axis=0)
    still = measures(frames, copy)
    assert tasks.reconstruct(candidate_of(Fake()), clip_of(frames))[0]["blur_sigma"] == 0.5
    assert math.isnan(still.l1_ratio) and math.isnan(still.temporal_ratio)
    assert still.sharpness == pytest.approx(1)
    # The source's own frame is left out: neither of the others is next to the other.
    assert math.isnan(measures(moving_clip(3), copy).temporal_ratio)


def test_only_the_mask_counts_for_the_ratios() -> None:
    frames = moving_clip()
    frames[:, :20] = 0

    def soil(s: Image, x: Image) -> Image:
        soiled = s.copy()
        soiled[:8] = 200  # far from M, so that no blur brings it in
        return soiled

    soiled = measures(frames, soil)
    assert soiled.l1_ratio == 1
    assert soiled.low_pass_ratio == pytest.approx(1, abs=0.01)
    dark = measures(moving_clip() // 34, copy)  # below 0.03 everywhere
    assert math.isnan(dark.motion_agreement) and math.isnan(dark.l1_ratio)
    assert soiled.l1 > measures(frames, lambda s, x: s).l1


def test_leakage_flags_a_copy_and_a_ghost_but_not_the_source() -> None:
    own, other = clip_of(moving_clip()), clip_of(moving_clip(seed=5))
    fake = Fake()
    held, samples = tasks.leakage(candidate_of(fake), own, other)
    assert held["source"] == pytest.approx(1) and not held["leaks"]
    assert held["driving"] == pytest.approx(held["floor"], abs=1e-6)
    assert len(samples) == SAMPLES
    assert np.array_equal(fake.reference, other.frames[0])
    copied, _ = tasks.leakage(candidate_of(Fake(copy)), own, other)
    assert copied["driving"] == pytest.approx(1) and copied["leaks"]
    ghost = Fake(lambda s, x: cv2.addWeighted(s, 0.67, x, 0.33, 0))
    third, _ = tasks.leakage(candidate_of(ghost), own, other)
    assert third["source"] > third["driving"] > 0.2 and third["leaks"]
    assert tasks.leaks({"source": 0.1, "driving": 0.12, "floor": 0.1})
    assert not tasks.leaks({"source": 0.9, "driving": 0.2, "floor": 0.15})


def test_another_subject_of_the_same_group_drives_whatever_the_order() -> None:
    who = [("a1", "a", "lung"), ("a2", "a", "lung"), ("b1", "b", "lung"), ("b2", "b", "lung")]
    who += [("m1", "m", "muscle"), ("m2", "m", "muscle")]
    clips = [Clip(name, Path(name), subject, group, "") for name, subject, group in who]
    chosen = [tasks.choose_driver(clips, 0, seed) for seed in range(20)]
    assert set(chosen) == {2, 3}
    for seed in range(10):  # its group has no other subject
        assert tasks.choose_driver(clips, 4, seed) in (0, 1, 2, 3)
    assert tasks.choose_driver(clips[:2], 0, 0) is None
    backwards = clips[::-1]
    again = [tasks.choose_driver(backwards, 5, seed) for seed in range(20)]
    assert [backwards[i].name for i in again] == [clips[i].name for i in chosen]


def loaded(folder: Path) -> ClipFrames:
    """Its first clip."""
    clip = find_clips([folder]).clips[0]
    return replace(load_clip(replace(clip, displacement=None), SIZE, 1), clip=clip)


def test_landmarks_are_followed_to_both_ends_and_dropped_frames_do_not_shift_the_field(
    phantom: Path, tmp_path: Path
) -> None:
    row, _ = tasks.reconstruct(candidate_of(Fake(copy)), loaded(phantom))
    exact, oracle = row["exact"], row["methods"]["oracle"]
    assert set(exact["skill"]) == set(row["methods"]) == {*tasks.METHODS, "oracle"}
    assert exact["skill"]["hold"] == 0 and exact["skill"]["oracle"] == 1 < exact["skill"]["model"]
    assert oracle["l1_ratio"] < 0.3 < row["methods"]["blur"]["l1_ratio"]
    assert oracle["temporal_correlation"] > 0.8
    assert exact["endpoint_error"] == pytest.approx(exact["endpoint_hold"])
    assert exact["endpoint_hold"] > 0.8
    true = marks(0)
    gaps = np.linalg.norm(true - true[COUNT // 2], axis=-1)
    wanted = np.delete(gaps, COUNT // 2, axis=0).mean(axis=0)
    for i, name in enumerate(NAMES):
        error = exact["landmarks"][name]
        assert error["hold"] == pytest.approx(wanted[i], abs=1e-3)
        assert error["model"] == error["truth"] < 0.3 and error["oracle"] < 0.6
    assert exact["landmark_ratio"] == exact["landmark"]["model"] / exact["landmark"]["hold"] < 0.2
    folder = Path(shutil.copytree(phantom, tmp_path / "phantom"))
    keep = [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8]
    write_clip(folder / "clips" / "s0.mkv", render(0, displacement(0))[keep])
    path = folder / "displacement" / "s0.npz"
    np.savez(path, displacement=displacement(0)[keep], sector=sector())
    (folder / "keypoints.csv").write_text("video,frame,keypoint,x,y,visible\n")
    clip = loaded(folder)
    assert clip.indices.tolist() == [0, 2, 3, 6, 7, 8, 9, 10, 11]
    repeated = tasks.reconstruct(candidate_of(Fake(copy)), clip)[0]["exact"]
    assert repeated["l1"] == exact["l1"]
    assert repeated["landmarks"] == {} and math.isnan(repeated["landmark_ratio"])


SMALL, WIDE, HIGH = 64, 180, 120


class Large(Fake):
    """Takes pictures of any size; makes the driving one, composes that or the source."""

    def __init__(self, composed: str = "frame") -> None:
        super().__init__(lambda source, frame: letterbox(frame, SMALL)[0])
        self.composed = composed

    def compose(self, size: str) -> Image:
        assert size == "source"
        return getattr(self, self.composed)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ClipFrames:
    """Nine frames of 180 x 120 in a wider picture, one of them twice."""
    folder = tmp_path_factory.mktemp("data")
    frames = moving_clip(9, 200)[:, :HIGH, :WIDE]
    for number, frame in enumerate([*frames[:3], frames[2], *frames[3:]]):
        wide = cv2.copyMakeBorder(frame, 5, 0, 10, 0, cv2.BORDER_CONSTANT, value=255)
        cv2.imwrite(str(folder / f"{number}.png"), wide)
    found = replace(find_clips([folder]).clips[0], crop=Crop(10, 5, WIDE, HIGH))
    return load_clip(found, SMALL, 1)


def test_an_enlarged_frame_is_blurred_and_a_composed_one_is_not(
    large: ClipFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tasks.at_own_size(candidate_of(Large(), SMALL, layers=True), large)
    assert found is not None
    assert (found["width"], found["height"], found["driven"]) == (WIDE, HIGH, 8)
    composed, enlarged = found["methods"]["composed"], found["methods"]["enlarged"]
    assert composed["l1_ratio"] == 0 and composed["sharpness"] == pytest.approx(1)
    assert enlarged["sharpness"] < 0.6
    assert 0.1 < enlarged["l1_ratio"] < 0.9  # the right picture, but for its blur
    alone = tasks.at_own_size(candidate_of(Large(), SMALL), large, max_frames=3)
    assert alone is not None and list(alone["methods"]) == ["enlarged"] and alone["driven"] == 3
    held = Large("source")
    found = tasks.at_own_size(candidate_of(held, SMALL, layers=True), large)
    assert found is not None and found["methods"]["composed"]["l1_ratio"] == 1
    assert found["methods"]["composed"]["sharpness"] == pytest.approx(1, abs=0.1)
    assert held.source.shape == (HIGH, WIDE) and held.reference is held.source
    assert held.source[0].max() < 255  # the crop left the border out
    # Neither a clip that the model sees whole, nor one that is too large to be composed.
    small = load_clip(large.clip, WIDE, 1)
    assert tasks.at_own_size(candidate_of(Large(), SMALL, layers=True), small) is None
    monkeypatch.setattr(tasks, "MOST_SIDE", WIDE - 1)
    assert tasks.at_own_size(candidate_of(Large(), SMALL), large) is None


def test_a_bundle_with_layers_composes(large: ClipFrames, tmp_path: Path) -> None:
    with open_candidate(make_toy_bundle(tmp_path / "toy", SMALL, layers=True)) as candidate:
        found = tasks.at_own_size(candidate, large, max_frames=2)
    assert found is not None
    # Its layers are neutral: it composes the source, warped a little.
    by = found["methods"]
    assert by["composed"]["sharpness"] > 0.8 > by["enlarged"]["sharpness"]
