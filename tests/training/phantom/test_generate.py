"""A phantom folder without its pixels: tables, pairs, what is rendered again, what is refused."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.phantom import generate as module
from sonomime.training.phantom.anatomies import ANATOMIES
from sonomime.training.phantom.anatomy import why_impossible
from sonomime.training.phantom.commands import _ANATOMIES
from sonomime.training.phantom.generate import Made, Pair, Settings, generate
from sonomime.training.phantom.subject import Subject, draw_subject
from sonomime.training.phantom.workers import Task

SETTINGS = Settings("pelvic", seed=3, subjects=15, frames=4, pairs=4)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files appear without being rendered; the names of those that would have been."""
    names: list[str] = []

    def run(tasks: Sequence[Task], workers: int, frames: int, label: str) -> None:
        total = 0
        for function, (folder, what, count) in tasks:
            single = function is module.make_clip
            files = module._clip_files if single else module._truth_files
            for path in files(folder, what.name):
                path.parent.mkdir(exist_ok=True)
                path.touch()
            names.append(what.name)
            total += count * (1 if single else 2)
        assert frames == total

    monkeypatch.setattr(module, "run", run)
    return names


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_tables_say_what_the_folder_holds(tmp_path: Path, rendered: list[str]) -> None:
    made = generate(tmp_path, SETTINGS, 2)
    assert made._replace(seconds=0) == Made(15, 4, 0, 0, 4 * (15 + 2 * 4), 0)
    assert len(rendered) == len(set(rendered)) == 19
    clips = table(tmp_path / "clips.csv")
    assert clips[4] == {
        "clip": "clips/pelvic3-004.mkv",
        "subject": "pelvic3-004",
        "group": "pelvic",
        "split": "test",
        "crop": "",
    }
    splits = [row["split"] for row in clips]
    assert (splits.count("test"), splits.count("val"), splits.count("train")) == (3, 1, 11)
    labels = table(tmp_path / "keypoints.csv")
    assert len(labels) == 15 * 4 * 2 and {row["visible"] for row in labels} == {"1"}
    assert {row["keypoint"] for row in labels} == {"bladder_neck", "symphysis"}
    assert all(0 <= float(row[axis]) <= 255 for row in labels for axis in "xy")
    tests = {row["clip"] for row in clips if row["split"] == "test"}
    for row in table(tmp_path / "truth" / "pairs.csv"):
        assert {row["source"], row["driving"]} < tests and row["split"] == "test"


def test_forty_subjects_are_split_as_said() -> None:
    identities = Settings("heart", seed=0, subjects=40, frames=4, pairs=0).identities()
    numbers = {
        split: [i.number for i in identities if i.split == split]
        for split in ("train", "val", "test")
    }
    assert {split: len(of) for split, of in numbers.items()} == {"train": 28, "val": 4, "test": 8}
    assert numbers["test"] == list(range(4, 40, 5))  # as before there was a val: pairs stay


def test_only_what_is_missing_is_made_and_the_user_hears_of_it(
    tmp_path: Path, rendered: list[str]
) -> None:
    generate(tmp_path, SETTINGS, 1)
    tables = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    rendered.clear()
    (tmp_path / "clips" / "pelvic3-002.mkv").unlink()
    (tmp_path / "subjects" / "pelvic3-007.json").unlink()
    pair = table(tmp_path / "truth" / "pairs.csv")[1]["pair"]
    (tmp_path / "truth" / f"{pair}.other.mkv").unlink()
    for path in tables:
        path.unlink()
    said: list[str] = []
    made = generate(tmp_path, SETTINGS, 1, said.append)
    assert rendered == ["pelvic3-002", "pelvic3-007", pair]
    assert said == ["13 of 15 clips were there already", "3 of 4 pairs were there already"]
    assert (made.clips_before, made.pairs_before, made.rendered) == (13, 3, 16)
    assert {path: path.read_bytes() for path in tables} == tables


def test_a_pairs_landmarks_stay_in_the_sector(tmp_path: Path) -> None:
    subjects = [draw_subject(identity) for identity in SETTINGS.identities()]
    chosen = module.choose_pairs(SETTINGS, subjects)
    assert len({pair.name for pair in chosen}) == 4
    for pair in chosen:
        assert pair.source is not pair.driving
        assert why_impossible(pair.source.body, pair.driving.body.states(40)) is None


def test_more_pairs_than_there_can_be_are_counted_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rendered: list[str]
) -> None:
    folder = tmp_path / "phantom"
    for subjects, possible in ((5, "only 0 pairs"), (15, "only ")):
        with pytest.raises(ConfigError, match=possible) as caught:
            generate(folder, Settings("pelvic", 3, subjects, 4, 99), 1)
        assert "pairs at most" in caught.value.hint and not folder.exists()

    def never(body: Any, states: Any) -> str:
        return "the landmark leaves the sector"

    monkeypatch.setattr(module, "why_impossible", never)
    with pytest.raises(ConfigError, match="--pairs 4: only 0 pairs are possible"):
        generate(folder, SETTINGS, 1)
    assert rendered == []


def test_another_phantom_in_the_folder_is_told_at_once(tmp_path: Path, rendered: list[str]) -> None:
    generate(tmp_path, SETTINGS, 1)
    with pytest.raises(ConfigError, match="holds another phantom: frames 4, not 5; pairs 4, not 0"):
        generate(tmp_path, Settings("pelvic", 3, 15, 5, 0), 1)


def test_the_command_line_knows_every_anatomy() -> None:
    assert set(_ANATOMIES) == set(ANATOMIES)


def test_names_of_pairs_and_seeds_of_pixels_do_not_collide() -> None:
    a, b = (draw_subject(identity) for identity in SETTINGS.identities()[:2])
    assert Pair(a, b).name == "pelvic3-000__pelvic3-001"
    uses = [module._seed(subject.identity, use) for subject in (a, b) for use in (1, 4)]
    assert len(set(uses)) == 4
    assert isinstance(a, Subject)
