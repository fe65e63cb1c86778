"""Reconstruction of clips whose exact motion is known: oracle, skill, landmarks both ways."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.support.errors import InputError
from sonomime.training.data.dataset import ClipFrames, find_clips, load_clip
from sonomime.training.evaluation import reconstruction as tasks
from sonomime.training.evaluation.ground_truth.scores import clip_truth
from sonomime.training.evaluation.metrics import ratio
from sonomime.training.evaluation.reconstruction_report import ReconstructionReport as Report

from ..fakes import Copy, Fake, candidate_of, drive
from ..phantoms import COUNT, NAMES, SIZE, displacement, marks, render, sector, write_clip
from ..phantoms import write_phantom as write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write(tmp_path / "phantom")


def loaded(folder: Path, which: int = 0) -> tuple[ClipFrames, Path]:
    clip = find_clips([folder]).clips[which]
    assert clip.displacement is not None
    return load_clip(replace(clip, displacement=None), SIZE, 1), clip.displacement


def drive_of(folder: Path, which: int = 0) -> tasks.Drive:
    clip, path = loaded(folder, which)
    return tasks.Drive(
        clip.clip.name, clip.clip.subject, "pelvic", clip.frames, clip_truth(path, clip)
    )


def test_the_oracle_has_skill_1_and_hold_0(folder: Path) -> None:
    result, _ = tasks.reconstruct(candidate_of(Fake(), SIZE), drive_of(folder))
    exact = result.exact
    assert exact is not None and set(exact.skill) == {*tasks.METHODS, tasks.ORACLE}
    assert exact.skill["model"] == exact.skill["hold"] == 0 and exact.skill["oracle"] == 1
    oracle = result.methods[tasks.ORACLE]
    assert oracle.l1_ratio < 0.3 < result.methods["blur"].l1_ratio
    assert oracle.temporal_correlation > 0.8
    assert exact.endpoint_error == exact.endpoint_hold > 0.8


def test_landmarks_are_followed_from_the_middle_to_both_ends(folder: Path) -> None:
    result, _ = tasks.reconstruct(candidate_of(Copy(), SIZE), drive_of(folder))
    exact = result.exact
    assert exact is not None and exact.skill["model"] > 1
    true = marks(0)
    gaps = np.linalg.norm(true - true[COUNT // 2], axis=-1)
    wanted = np.delete(gaps, COUNT // 2, axis=0).mean(axis=0)
    for i, name in enumerate(NAMES):
        error = exact.landmarks[name]
        assert error.hold == pytest.approx(wanted[i], abs=1e-3)
        assert error.model == error.truth < 0.3 and error.oracle < 0.6
    assert exact.landmark is not None
    assert exact.landmark_ratio == ratio(exact.landmark.model, exact.landmark.hold) < 0.2


def test_frames_that_were_dropped_do_not_shift_the_field(folder: Path) -> None:
    keep = [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8]
    write_clip(folder / "clips" / "s0.mkv", render(0, displacement(0))[keep])
    path = folder / "displacement" / "s0.npz"
    np.savez(path, displacement=displacement(0)[keep], sector=sector())
    labels = (folder / "keypoints.csv").read_text().splitlines()
    (folder / "keypoints.csv").write_text("\n".join(labels[:1]) + "\n")
    clip, _ = loaded(folder)
    assert clip.indices.tolist() == [0, 2, 3, 6, 7, 8, 9, 10, 11]
    result, _ = tasks.reconstruct(candidate_of(Copy(), SIZE), drive_of(folder))
    (folder / "again").mkdir()
    plain, _ = tasks.reconstruct(candidate_of(Copy(), SIZE), drive_of(write(folder / "again")))
    assert result.exact is not None and plain.exact is not None
    assert result.exact.l1 == plain.exact.l1
    assert result.exact.landmarks == {} and math.isnan(result.exact.landmark_ratio)


def test_clips_without_a_field_are_judged_as_before() -> None:
    result, _ = tasks.reconstruct(candidate_of(Fake()), drive())
    assert result.exact is None and set(result.methods) == set(tasks.METHODS)


def _report(results: list[tasks.ClipResult]) -> Report:
    settings = {"task": "reconstruction", "seed": 0}
    return Report("sonomime evaluate x", {"kind": "fake"}, settings, results, [], [])


def test_the_report_shows_a_dash_where_there_is_no_field(folder: Path) -> None:
    with_field, _ = tasks.reconstruct(candidate_of(Fake(), SIZE), drive_of(folder))
    without, _ = tasks.reconstruct(candidate_of(Fake()), drive())
    text = _report([with_field, without]).to_markdown()
    tables = [part for part in text.split("\n\n") if part.startswith("| ")]
    assert len(tables) == 7
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    rows = {line.split("|")[1].strip(): line for line in tables[-1].splitlines()}
    assert rows["clips/a.mp4"].count(" - ") == 10 and " - " not in rows["clips/s0.mkv"]
    record = _report([with_field, without]).record
    assert record["clips"][0]["exact"]["skill"]["oracle"] == 1
    assert record["clips"][1]["exact"] is None
    assert record["means"]["pelvic"]["exact"]["units"] == 1
    assert record["means"]["lung"]["exact"] is None
    assert "oracle" in record["means"]["all"]["methods"]
    alone = _report([without]).to_markdown()
    assert "## Against the exact field" not in alone
    assert "| oracle | - | - |" in alone


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"displacement": displacement(0, COUNT + 1)}, f"({COUNT + 1}, 96, 96, 2)"),
        ({"displacement": displacement(0, COUNT, 48)}, "(9, 48, 48, 2)"),
        ({"sector": sector()}, "no array 'displacement'"),
    ],
)
def test_a_field_that_does_not_fit_is_said_with_a_cure(
    folder: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(folder / "displacement" / "s0.npz", **arrays)
    with pytest.raises(InputError) as caught:
        drive_of(folder)
    assert said in caught.value.message and "s0.npz" in caught.value.message and caught.value.hint
