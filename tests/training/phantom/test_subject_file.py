"""Subjects in files that users edit: read back exactly, and what cannot be is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonomime.runtime.support.errors import InputError
from sonomime.training.phantom.subject import draw_subject, read_subject, subject_text

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
TEXTS = ["", "[1]", "\xff", "[" * 100_000, DEEP, " " * (1 << 21), '{"anatomy": ' + DEEP + "}"]


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
