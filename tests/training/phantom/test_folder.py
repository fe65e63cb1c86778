"""A phantom folder and its subjects' files: read back exactly; what cannot be is named."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.cli import main
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.support.errors import ConfigError, InputError, OutputError
from sonomime.training.data.clip_frames import load_clip
from sonomime.training.data.dataset import find_clips
from sonomime.training.phantom.body import Body
from sonomime.training.phantom.generate import (
    Made,
    Settings,
    choose_pairs,
    claimed,
    clip_files,
    generate,
    refuse_other,
)
from sonomime.training.phantom.subject import Subject, draw_subject, read_subject, subject_text

OPTIONS: dict[str, Any] = {"anatomy": "pelvic", "seed": 3, "frames": 10, "part": {"depth": 80.0}}
SETTINGS = Settings("pelvic", seed=3, subjects=10, frames=2, pairs=1)


def test_a_folder_goes_on_with_the_same_settings_only_and_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "phantom"
    refuse_other(folder, OPTIONS)
    assert not folder.parent.exists()
    with claimed(folder, OPTIONS):
        (folder / "clips").mkdir()
    assert json.loads((folder / "phantom.json").read_text()) == OPTIONS
    other = {**OPTIONS, "seed": 4, "part": {"depth": 70.0}, "subject": "a"}
    with pytest.raises(ConfigError) as caught:
        refuse_other(folder, other)
    said = ("seed 3, not 4", "part.depth 80.0, not 70.0", "subject (none), not a")
    assert all(each in caught.value.message for each in said)
    # What a killed run left half-written is removed.
    left = [folder / "clips" / ".a.0123abcd.part.mkv", folder / ".clips.0123abcd.part.csv"]
    mine = [folder / "clips" / ".hidden", folder / "clips" / "a.part.mkv"]
    for path in (*left, *mine):
        path.touch()
    with pytest.raises(KeyboardInterrupt), claimed(folder, OPTIONS):
        assert not any(path.exists() for path in left)
        with pytest.raises(OutputError, match="another sonomime"), claimed(folder, OPTIONS):
            pytest.fail("let in")
        left[0].touch()
        raise KeyboardInterrupt
    assert not left[0].exists() and all(path.exists() for path in mine)


DEEP = '{"a": ' * 900 + "1" + "}" * 900


@pytest.mark.parametrize("text", ["", "[]", "\xff", "[" * 100_000, DEEP])
def test_a_damaged_phantom_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "phantom.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is damaged|another phantom") as caught:
        refuse_other(tmp_path, OPTIONS)
    assert "-o" in caught.value.hint


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_pairs_whose_landmarks_would_leave_the_sector_are_not_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subjects = [draw_subject("pelvic", 3, number) for number in range(15)]
    answers = iter([None, None, *["it leaves the sector"] * 4])
    monkeypatch.setattr(Body, "why_impossible", lambda body, states: next(answers))
    with pytest.raises(ConfigError, match="--pairs 4: only 2 pairs") as caught:
        choose_pairs(replace(SETTINGS, pairs=4), subjects)
    assert "at most 2 pairs" in caught.value.hint


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only the test subjects and their pair are rendered; copies stand in for the other clips."""
    folder = tmp_path_factory.mktemp("phantom") / "whole"
    clips = [clip_files(folder, f"pelvic3-{number:03d}") for number in range(10)]
    others = [files for number, files in enumerate(clips) if number not in (4, 9)]
    for path in (path for files in others for path in files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "phantom.json").write_text(json.dumps(asdict(SETTINGS)))
    assert generate(folder, SETTINGS, 2)._replace(seconds=0) == Made(10, 1, 8, 0, 2 * 4, 0)
    for files in others:
        for made, copy in zip(clips[4], files, strict=True):
            shutil.copy(made, copy)
    return folder


def frames(path: Path) -> NDArray[np.uint8]:
    source = open_source(path)
    return np.stack([image for _, _, image in source])


def content(path: Path) -> bytes:
    """Of a clip its frames, because a container has a random name in it."""
    return frames(path).tobytes() if path.suffix == ".mkv" else path.read_bytes()


@pytest.mark.slow
def test_the_tables_say_what_the_folder_holds(phantom: Path) -> None:
    clips, labels = table(phantom / "clips.csv"), table(phantom / "keypoints.csv")
    row = {"clip": "clips/pelvic3-004.mkv", "subject": "pelvic3-004", "group": "pelvic"}
    assert clips[4] == row | {"split": "test", "crop": "0,0,256,256"}
    splits = ["train"] * 10
    splits[4::5], splits[7] = ["test"] * 2, "val"  # of ten seven, one and two
    assert [row["split"] for row in clips] == splits
    assert Subject("pelvic", 3, 17, "").split == "val"
    assert len(labels) == 10 * 2 * 2 and {row["visible"] for row in labels} == {"1"}
    assert {row["keypoint"] for row in labels} == {"bladder_neck", "symphysis"}
    assert all(0 <= float(row[axis]) <= 255 for row in labels for axis in "xy")
    (pair,) = table(phantom / "truth" / "pairs.csv")
    ends = {pair["source"], pair["driving"]}
    assert ends == {clips[4]["clip"], clips[9]["clip"]} and pair["split"] == "test"


@pytest.mark.slow
def test_a_broken_run_makes_what_is_missing_with_other_jobs_and_gives_the_same(
    phantom: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(phantom, tmp_path / "broken")
    (other,) = broken.glob("truth/*.other.mkv")
    gone = ("subjects/pelvic3-009.json", "clips.csv", "keypoints.csv")
    for path in (other, *(broken / name for name in gone)):
        path.unlink()
    made = generate(broken, SETTINGS, 1)
    assert made._replace(seconds=0) == Made(10, 1, 9, 0, 2 * (1 + 2), 0)
    files = sorted(path.relative_to(phantom) for path in phantom.rglob("*.*"))
    assert files == sorted(path.relative_to(broken) for path in broken.rglob("*.*"))
    assert len(files) == 3 * 10 + 3 + 4
    assert all(content(phantom / file) == content(broken / file) for file in files)
    with pytest.raises(ConfigError, match="frames 2, not 5; pairs 1, not 0"):
        generate(broken, replace(SETTINGS, frames=5, pairs=0), 1)


@pytest.mark.slow
def test_an_unedited_subject_gives_the_same_clip_again(
    phantom: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sonomime.training.phantom.subject.CHECKED_STATES", 3)  # each takes time
    file, again = tmp_path / "pelvic3-004.json", tmp_path / "again"
    text = (phantom / "subjects" / file.name).read_text()
    file.write_text(text)
    words = ["phantom", "-o", str(again), "--subject", str(file), "--frames", "2"]
    assert main(words) == 0 and capsys.readouterr().out.splitlines()[-1] == str(again)
    for made in clip_files(Path(), "pelvic3-004"):
        assert content(again / made) == content(phantom / made)
    for name in ("clips.csv", "keypoints.csv"):
        rows = table(again / name)
        assert rows and all(row in table(phantom / name) for row in rows)
    file.write_text(text.replace('"noise": ', '"noise": 1'))
    assert main(words) == 2
    assert "holds another phantom: parameters.display.noise" in capsys.readouterr().err


@pytest.mark.slow
def test_a_true_prediction_starts_at_the_sources_rest(phantom: Path) -> None:
    (pair,) = table(phantom / "truth" / "pairs.csv")
    stem = phantom / "truth" / pair["pair"]
    truth, other = frames(stem.with_suffix(".mkv")), frames(stem.with_suffix(".other.mkv"))
    source = frames(phantom / pair["source"])
    assert truth.shape == other.shape == source.shape == (2, 256, 256)
    with np.load(stem.with_suffix(".npz")) as arrays:
        assert arrays["displacement"].dtype == arrays["keypoints"].dtype == np.float32
        np.testing.assert_array_equal(arrays["displacement"][0], 0)
        assert list(arrays["keypoint_names"]) == ["bladder_neck", "symphysis"]
        keypoints, sector = arrays["keypoints"], arrays["sector"]
    rows = table(phantom / "keypoints.csv")
    start, way = (
        np.array([[float(r["x"]), float(r["y"])] for r in rows if r["video"] == pair[end]])
        for end in ("source", "driving")
    )
    way = way.reshape(2, 2, 2)
    np.testing.assert_allclose(keypoints, start[:2] + way - way[0], atol=2e-3)
    # The same scatterers as the source's: only its noise is missing; the other has its own.
    gap = [np.abs(v[0].astype(int) - source[0])[sector].mean() for v in (truth, other)]
    assert gap[0] < 0.5 * gap[1]


@pytest.mark.slow
def test_it_is_a_dataset_that_trains(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = find_clips([phantom])
    assert (len(found.clips), found.warnings, found.unsupported) == (10, [], [])
    assert found.clips[0].keypoint_names == ("bladder_neck", "symphysis")
    clip = load_clip(found.clips[0], 256, 1)
    assert len(clip) == 2 and clip.visible.all()
    words = f"train lite --data {phantom} -o {tmp_path}/run --set model.image_size=64"
    for matcher in ("grid", "stiff", "shading"):
        words += f" --set model.matcher.{matcher}=8"
    words += " --set train.max_steps=2 --set train.batch_size=1"
    assert main(words.split()) == 0 and (tmp_path / "run" / "checkpoint.pt").exists()


Edit = Callable[[dict[str, Any]], object]
SUBJECTS = {name: draw_subject(name, 4, 2) for name in ("pelvic", "heart")}
PELVIC, HEART = (subject.parameters for subject in SUBJECTS.values())


def edited(folder: Path, edit: Edit, anatomy: str = "pelvic") -> Path:
    data = json.loads(subject_text(SUBJECTS[anatomy]))
    edit(data)
    path = folder / "mine.json"
    path.write_text(json.dumps(data))
    return path


def put(where: str, value: Any) -> Edit:
    part, _, last = where.rpartition(".")
    return lambda data: (data[part] if part else data).update({last: value})


@pytest.mark.parametrize("anatomy", SUBJECTS)
def test_what_is_written_is_read_back_exactly(
    tmp_path: Path, anatomy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonomime.training.phantom.subject.CHECKED_STATES", 3)  # each takes time
    subject = replace(SUBJECTS[anatomy], name="mine", seed=0, number=7)
    assert read_subject(edited(tmp_path, put("speckle", [0, 7]), anatomy), 2) == subject


WRONG: list[tuple[Edit, str]] = [
    (put("necks", 1), "unknown key 'necks'|'neck'"),
    (put("manoeuvre.decent", 1), "manoeuvre: unknown key 'decent'|'descent'"),
    (lambda data: data.pop("wall"), "missing key 'wall'"),
    (put("wall", 10**400), "wall"),
    (put("neck", [1, float("nan")]), "neck[1]"),
    (put("anatomy", "pelvik"), "'pelvik'|'pelvic'"),
    (put("speckle", [1, 10**400]), "speckle"),
    (put("speckle", [1, True]), "speckle[1]"),
    (put("probe.depth", -80.0), "probe.depth is -80: it must be from 10 to 300"),
    (put("display.persistence", [0.5, 0.2, 0.2]), "display.persistence"),
    (put("edge", [-15, -20]), "edge"),
    (put("neck", [200.0, 45.0]), "neck"),
    (put("verge", PELVIC.junction), "verge|junction"),
    (put("manoeuvre.start", 0.9), "manoeuvre.start"),
    (put("manoeuvre.seed", 10**400), "manoeuvre.seed"),
    (put("neck", [60.0, 45.0]), "bladder_neck lies outside of the sector|probe's"),
    (put("neck", [-25.0, 15.0]), "is pressed into the symphysis"),
    (put("manoeuvre.descent", 40), "frame"),
]
WRONG_HEARTS: list[tuple[Edit, str]] = [
    (put("septal", HEART.lateral), "septal"),
    (lambda data: data.update(septal=HEART.lateral, lateral=HEART.septal), "lateral"),
    (put("lateral", [300.0, 100.0]), "lateral"),
    (put("apex", [5.0, 100.0]), "apex"),
    (put("beating.beats", 50.0), "beating.beats"),
]


@pytest.mark.parametrize(
    ("anatomy", "edit", "said"),
    [("pelvic", *case) for case in WRONG] + [("heart", *case) for case in WRONG_HEARTS],
)
def test_what_cannot_be_is_named_by_file_and_parameter(
    tmp_path: Path, anatomy: str, edit: Edit, said: str
) -> None:
    path = edited(tmp_path, edit, anatomy)
    with pytest.raises(InputError) as caught:
        read_subject(path, 4)
    shown = f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.startswith(f"{path}: ") and caught.value.hint
    assert all(part in shown for part in said.split("|")), shown


DEEP = "[" * 3000 + "]" * 3000
SPACES = " " * (1 << 20)
TEXTS = ["", "[1]", "\xff", "[" * 100_000, DEEP, SPACES, SPACES + "{}", '{"anatomy": ' + DEEP + "}"]


def test_what_is_not_a_subject_is_refused_and_so_is_a_name_that_no_clip_can_have(
    tmp_path: Path,
) -> None:
    paths = [edited(tmp_path, id).rename(tmp_path / "a,b.json"), tmp_path, tmp_path / "none.json"]
    for number, text in enumerate(TEXTS):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_bytes(text.encode("latin-1"))
    for path in paths:
        with pytest.raises(InputError) as caught:
            read_subject(path, 4)
        assert str(path) in caught.value.message and caught.value.hint
