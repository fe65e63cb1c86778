"""Driving clips with predictors whose faults are known, and METHOD's baselines on real clips."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonomime.training.data.dataset import find_clips, load_clip
from sonomime.training.evaluation import reconstruction as tasks
from sonomime.training.evaluation.fidelity import Fidelity
from sonomime.training.evaluation.metrics import Leakage, clip_mask
from sonomime.training.evaluation.reconstruction_report import ReconstructionReport, leaks
from sonomime.training.evaluation.summary import mean_methods

from .fakes import Blurred, Copy, Fake, Ghost, candidate_of, drive, moving_clip


@given(st.integers(2, 400), st.none() | st.integers(1, 50))
def test_the_source_frame_never_drives(count: int, at_most: int | None) -> None:
    indices = tasks.driven_frames(count, at_most)
    assert count // 2 not in indices
    assert indices == sorted(set(indices))
    assert len(indices) == min(count - 1, at_most or count)
    if len(indices) > 1:
        others = [i for i in range(count) if i != count // 2]
        assert (indices[0], indices[-1]) == (others[0], others[-1])


def test_a_held_source_is_one_by_definition() -> None:
    result, pictures = tasks.reconstruct(candidate_of(Fake()), drive())
    model = result.methods["model"]
    assert model.l1_ratio == 1 and model.low_pass_ratio == 1
    assert model == pytest.approx(result.methods["hold"], abs=1e-6)
    assert (result.frames, result.driven) == (9, 8)
    assert [sample.number for sample in pictures.own] == [0, 2, 5, 6, 8]
    assert np.array_equal(pictures.source, moving_clip()[4])


def test_a_copy_is_perfect_and_a_blurred_one_is_not_sharp() -> None:
    copy, _ = tasks.reconstruct(candidate_of(Copy()), drive())
    assert copy.methods["model"].l1_ratio == 0
    assert copy.methods["model"].sharpness == pytest.approx(1)
    assert copy.methods["model"].temporal_correlation == pytest.approx(1)
    blurred, _ = tasks.reconstruct(candidate_of(Blurred()), drive())
    assert blurred.methods["model"].sharpness < 0.5


def test_the_flow_that_sees_the_target_beats_hold() -> None:
    result, _ = tasks.reconstruct(candidate_of(Fake()), drive(size=128))
    flow = result.methods["flow"]
    assert flow.l1_ratio < 0.6
    assert flow.motion_agreement > 0.9
    assert 0.8 < flow.farneback_agreement != flow.motion_agreement
    assert result.mean_flow > 2


def test_best_blur_is_the_best_of_its_sigmas() -> None:
    frames = moving_clip()
    mask = clip_mask(frames)
    still = np.repeat(frames[:1], 3, axis=0)
    least = tasks.BLUR_SIGMAS[0]
    assert tasks.best_blur(still, [0, 2], still[1], mask) == least
    result, _ = tasks.reconstruct(candidate_of(Fake()), drive())
    assert result.blur_sigma > least
    assert result.methods["blur"].l1_ratio < 1


def test_fewer_frames_on_request() -> None:
    result, pictures = tasks.reconstruct(candidate_of(Copy()), drive(count=30), max_frames=3)
    assert result.driven == 3
    assert [sample.number for sample in pictures.own] == [0, 14, 29]


def test_two_frames_are_a_clip() -> None:
    result, pictures = tasks.reconstruct(candidate_of(Copy()), drive(count=2))
    assert result.driven == 1 and len(pictures.own) == 1
    assert result.methods["model"].l1_ratio == 0
    assert math.isnan(result.methods["model"].temporal_ratio)


def test_a_colour_model_is_judged_too() -> None:
    grey = moving_clip(5)
    colour = tasks.Drive("c", "c", "lung", np.repeat(grey[..., None], 3, axis=3))
    result, _ = tasks.reconstruct(candidate_of(Copy(), channels=3), colour)
    assert result.methods["model"].l1_ratio == 0


def test_leakage_flags_a_copy_and_a_ghost_but_not_the_source() -> None:
    own, other = drive(), drive("clips/b.mp4", "b", seed=5)
    held, samples = tasks.leakage(candidate_of(Fake()), own, other)
    assert held.source == pytest.approx(1) and held.driving == pytest.approx(held.floor, abs=1e-6)
    assert not leaks(held)
    assert len(samples) == tasks.SAMPLES
    copied, _ = tasks.leakage(candidate_of(Copy()), own, other)
    assert copied.driving == pytest.approx(1) and leaks(copied)
    ghost, _ = tasks.leakage(candidate_of(Ghost()), own, other)
    assert ghost.source > ghost.driving > 0.2 and leaks(ghost)


def test_leakage_starts_from_the_first_frame_of_the_other_clip() -> None:
    fake, other = Fake(), drive("clips/b.mp4", "b", seed=5)
    tasks.leakage(candidate_of(fake), drive(), other)
    assert np.array_equal(fake.reference, other.frames[0])


CLIPS = [
    ("a1", "a", "lung"),
    ("a2", "a", "lung"),
    ("b1", "b", "lung"),
    ("b2", "b", "lung"),
    ("m1", "m", "muscle"),
    ("m2", "m", "muscle"),
]


def test_another_subject_of_the_same_group_drives() -> None:
    for seed in range(10):
        assert tasks.choose_driver(CLIPS, 0, seed) in (2, 3)
        assert tasks.choose_driver(CLIPS, 4, seed) in (0, 1, 2, 3)  # its group has no other subject
    assert tasks.choose_driver(CLIPS[:2], 0, 0) is None


def test_the_choice_hangs_on_the_seed_alone() -> None:
    chosen = [CLIPS[tasks.choose_driver(CLIPS, 0, seed) or 0] for seed in range(20)]
    assert len(set(chosen)) == 2
    backwards = CLIPS[::-1]
    again = [backwards[tasks.choose_driver(backwards, 5, seed) or 0] for seed in range(20)]
    assert chosen == again


def _result(clip: str, group: str, l1_ratio: float, agreement: float) -> tasks.ClipResult:
    fidelity = Fidelity(l1_ratio, 1, 1, agreement, agreement, 1, 1, 0.1, 20, 0.5)
    leak = Leakage(0.9, 0.0, 0.0) if clip == "a" else None
    return tasks.ClipResult(clip, clip, group, 9, 8, 3, {"model": fidelity}, 1, None, leak)


def _means(results: list[tasks.ClipResult]) -> Any:
    return ReconstructionReport("", {}, {"seed": 0}, results, [], []).record["means"]


def test_means_run_over_the_clips_that_define_a_measure() -> None:
    results = [
        _result("a", "lung", 0.5, math.nan),
        _result("b", "lung", 0.7, 0.4),
        _result("c", "bone", 0.9, math.nan),
    ]
    found = _means(results)
    assert found["all"]["methods"]["model"]["l1_ratio"] == pytest.approx(0.7)
    assert found["all"]["methods"]["model"]["motion_agreement"] == pytest.approx(0.4)
    leakage = found["all"]["leakage"]
    assert leakage == {"source": pytest.approx(0.9), "driving": 0, "floor": 0, "leaks": False}
    assert _means(results[1:])["all"]["leakage"] is None
    assert list(found) == ["all", "bone", "lung"]
    assert found["bone"]["methods"]["model"]["motion_agreement"] is None


@pytest.mark.slow
def test_baselines_on_real_clips_stand_where_they_were_seen(
    shared_data: Path, tmp_path: Path
) -> None:
    """METHOD saw, over all its clips: blur .98 with sharpness .3-.4, dense flow .70 with .95."""
    wanted = {"lung_Vir", "isokinetic120", "alines", "clarius"}
    found = find_clips([shared_data / "test"])
    clips = [clip for clip in found.clips if any(part in clip.name for part in wanted)]
    assert len(clips) == len(wanted)
    results = []
    for clip in clips:
        frames = load_clip(clip, 256, 1, tmp_path).frames
        one = tasks.Drive(clip.name, clip.subject, clip.group, frames)
        results.append(tasks.reconstruct(candidate_of(Fake(), 256), one, max_frames=8)[0])
    hold, blur, flow = map(mean_methods(results).get, ("hold", "blur", "flow"))
    assert hold.l1_ratio == pytest.approx(1) and hold.motion_agreement == pytest.approx(0, abs=0.01)
    assert 0.85 < blur.l1_ratio < 0.99
    assert blur.low_pass_ratio == pytest.approx(1, abs=0.07)
    assert blur.sharpness < 0.5
    assert 0.6 < flow.l1_ratio < 0.8
    assert 0.8 < flow.sharpness < 1.1
    assert flow.motion_agreement > 0.75
    assert 0.4 < flow.temporal_correlation < 0.8
