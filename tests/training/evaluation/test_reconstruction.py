"""Driving clips with predictors whose faults are known: baselines, exact fields, leakage."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonomime.training.data.dataset import ClipFrames, find_clips, load_clip
from sonomime.training.evaluation import reconstruction as tasks
from sonomime.training.evaluation.layouts import average
from sonomime.training.evaluation.loop import SAMPLES
from sonomime.training.evaluation.metrics import Leakage

from .fakes import Copy, Fake, Ghost, candidate_of, clip_of, moving_clip
from .phantoms import COUNT, NAMES, SIZE, displacement, marks, render, sector, write_clip


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
    fake = Fake()
    row, samples = tasks.reconstruct(candidate_of(fake), clip_of())
    model = row["methods"]["model"]
    assert model["l1_ratio"] == 1 and model["low_pass_ratio"] == 1
    assert model == pytest.approx(row["methods"]["hold"], abs=1e-4)
    assert (row["frames"], row["driven"]) == (9, 8)
    assert [sample.step.number for sample in samples] == [0, 2, 5, 6, 8]
    assert row["exact"] is None and set(row["methods"]) == set(tasks.METHODS)
    assert np.array_equal(fake.source, moving_clip()[4])
    assert fake.reference is not None and np.array_equal(fake.reference, fake.source)


def test_a_copy_in_colour_is_perfect_and_dense_flow_beats_hold() -> None:
    frames = np.repeat(moving_clip(5, 128)[..., None], 3, axis=3)
    row, _ = tasks.reconstruct(candidate_of(Copy(), channels=3), clip_of(frames=frames))
    assert row["methods"]["model"]["l1_ratio"] == 0
    assert row["methods"]["model"]["sharpness"] == pytest.approx(1)
    assert row["methods"]["flow"]["l1_ratio"] < 0.6
    assert row["methods"]["blur"]["l1_ratio"] < 1 and row["mean_flow"] > 2


@pytest.mark.parametrize(
    ("count", "at_most", "numbers"), [(30, 3, [0, 14, 29]), (2, None, [0]), (9, 1, [0])]
)
def test_few_frames(count: int, at_most: int | None, numbers: list[int]) -> None:
    row, samples = tasks.reconstruct(candidate_of(Copy()), clip_of(count=count), at_most)
    assert row["driven"] == len(numbers)
    assert [sample.step.number for sample in samples] == numbers
    assert row["methods"]["model"]["l1_ratio"] == 0
    assert len(numbers) > 1 or math.isnan(row["methods"]["model"]["temporal_ratio"])


def test_leakage_flags_a_copy_and_a_ghost_but_not_the_source() -> None:
    own, other = clip_of(), clip_of("clips/b.mp4", "b", seed=5)
    fake = Fake()
    held, samples = tasks.leakage(candidate_of(fake), own, other)
    assert held["source"] == pytest.approx(1) and not held["leaks"]
    assert held["driving"] == pytest.approx(held["floor"], abs=1e-6)
    assert len(samples) == SAMPLES
    assert fake.reference is not None and np.array_equal(fake.reference, other.frames[0])
    copied, _ = tasks.leakage(candidate_of(Copy()), own, other)
    assert copied["driving"] == pytest.approx(1) and copied["leaks"]
    ghost, _ = tasks.leakage(candidate_of(Ghost()), own, other)
    assert ghost["source"] > ghost["driving"] > 0.2 and ghost["leaks"]
    assert tasks.leaks(Leakage(source=0.1, driving=0.12, floor=0.1))
    assert not tasks.leaks(Leakage(source=0.9, driving=0.2, floor=0.15))


def test_another_subject_of_the_same_group_drives_whatever_the_order() -> None:
    who = [("a1", "a", "lung"), ("a2", "a", "lung"), ("b1", "b", "lung"), ("b2", "b", "lung")]
    who += [("m1", "m", "muscle"), ("m2", "m", "muscle")]
    clips = [clip_of(*each, count=2, size=8).clip for each in who]
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


def test_with_an_exact_field_the_oracle_has_skill_1_and_hold_0(phantom: Path) -> None:
    row, _ = tasks.reconstruct(candidate_of(Fake(), SIZE), loaded(phantom))
    exact = row["exact"]
    assert set(exact["skill"]) == set(row["methods"]) == {*tasks.METHODS, "oracle"}
    assert exact["skill"]["model"] == exact["skill"]["hold"] == 0
    assert exact["skill"]["oracle"] == 1
    oracle = row["methods"]["oracle"]
    assert oracle["l1_ratio"] < 0.3 < row["methods"]["blur"]["l1_ratio"]
    assert oracle["temporal_correlation"] > 0.8
    assert exact["endpoint_error"] == exact["endpoint_hold"] > 0.8


def test_landmarks_are_followed_from_the_middle_to_both_ends(phantom: Path) -> None:
    exact = tasks.reconstruct(candidate_of(Copy(), SIZE), loaded(phantom))[0]["exact"]
    assert exact["skill"]["model"] > 1
    true = marks(0)
    gaps = np.linalg.norm(true - true[COUNT // 2], axis=-1)
    wanted = np.delete(gaps, COUNT // 2, axis=0).mean(axis=0)
    for i, name in enumerate(NAMES):
        error = exact["landmarks"][name]
        assert error["hold"] == pytest.approx(wanted[i], abs=1e-3)
        assert error["model"] == error["truth"] < 0.3 and error["oracle"] < 0.6
    assert exact["landmark_ratio"] == exact["landmark"]["model"] / exact["landmark"]["hold"] < 0.2


def test_frames_that_were_dropped_do_not_shift_the_field(phantom: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(phantom, tmp_path / "phantom"))
    plain, _ = tasks.reconstruct(candidate_of(Copy(), SIZE), loaded(folder))
    keep = [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8]
    write_clip(folder / "clips" / "s0.mkv", render(0, displacement(0))[keep])
    path = folder / "displacement" / "s0.npz"
    np.savez(path, displacement=displacement(0)[keep], sector=sector())
    labels = (folder / "keypoints.csv").read_text().splitlines()
    (folder / "keypoints.csv").write_text("\n".join(labels[:1]) + "\n")
    clip = loaded(folder)
    assert clip.indices.tolist() == [0, 2, 3, 6, 7, 8, 9, 10, 11]
    exact = tasks.reconstruct(candidate_of(Copy(), SIZE), clip)[0]["exact"]
    assert exact["l1"] == plain["exact"]["l1"]
    assert exact["landmarks"] == {} and math.isnan(exact["landmark_ratio"])


@pytest.mark.slow
def test_baselines_on_real_clips_stand_where_they_were_seen(shared_data: Path) -> None:
    """Seen over all clips: blur .98 with sharpness .3-.4, dense flow .70 with .95."""
    wanted = {"lung_Vir", "isokinetic120", "alines", "clarius"}
    found = find_clips([shared_data / "test"])
    clips = [clip for clip in found.clips if any(part in clip.name for part in wanted)]
    assert len(clips) == len(wanted)
    candidate = candidate_of(Fake(), 256)
    frames = [load_clip(clip, 256, 1) for clip in clips]
    rows = [tasks.reconstruct(candidate, one, max_frames=8)[0]["methods"] for one in frames]
    means = average(rows)
    hold, blur, flow = (means[name] for name in ("hold", "blur", "flow"))
    assert hold["l1_ratio"] == pytest.approx(1) and hold["motion_agreement"] == 0
    assert 0.85 < blur["l1_ratio"] < 0.99 and blur["sharpness"] < 0.5
    assert blur["low_pass_ratio"] == pytest.approx(1, abs=0.07)
    assert 0.6 < flow["l1_ratio"] < 0.8 and 0.8 < flow["sharpness"] < 1.1
    assert flow["motion_agreement"] > 0.75 and 0.4 < flow["temporal_correlation"] < 0.8
