"""Subjects that somebody describes: read back exactly, and what cannot be is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonomime.runtime.support.errors import InputError
from sonomime.training.phantom.subject import Identity, Subject, draw_subject
from sonomime.training.phantom.subject_file import read_subject, subject_text

Edit = Callable[[dict[str, Any]], object]
SUBJECT = draw_subject(Identity("pelvic", 11, 0))


def edited(folder: Path, edit: Edit) -> Path:
    data = json.loads(subject_text(SUBJECT))
    edit(data)
    path = folder / "mine.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("anatomy", ["pelvic", "heart"])
def test_what_is_written_is_read_back_exactly(tmp_path: Path, anatomy: str) -> None:
    subject = draw_subject(Identity(anatomy, 4, 2))
    path = tmp_path / f"{subject.name}.json"
    path.write_text(subject_text(subject))
    assert read_subject(path, 8) == subject


def test_an_edited_subject_is_what_was_asked_for(tmp_path: Path) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["manoeuvre"]["descent"] = 5
        data["speckle"] = [0, 7]

    subject = read_subject(edited(tmp_path, edit), 8)
    assert (subject.name, subject.identity) == ("mine", Identity("pelvic", 0, 7))
    assert subject.parameters.manoeuvre.descent == 5.0
    assert isinstance(subject, Subject)


def put(where: str, value: Any) -> Edit:
    *parts, last = where.split(".")

    def edit(data: dict[str, Any]) -> None:
        for part in parts:
            data = data[part]
        data[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (put("necks", 1), "unknown key 'necks'|did you mean 'neck'"),
        (put("manoeuvre.decent", 1), "manoeuvre: unknown key 'decent'|'descent'"),
        (lambda data: data.pop("wall"), "missing key 'wall'"),
        (put("wall", "4"), "wall: expected a number"),
        (put("probe.depth", None), "probe.depth: expected a number"),
        (put("neck", [1, 2, 3]), "neck: expected 2 values, found 3"),
        (put("neck", [1, float("nan")]), "neck[1]: expected a finite number"),
        (put("wall", 10**400), "wall: expected a number"),
        (put("anatomy", "pelvik"), "anatomy is 'pelvik'|'pelvic'"),
        (lambda data: data.pop("anatomy"), "anatomy is None|pelvic"),
        (put("speckle", [1, -1]), "speckle is [1, -1]|whole numbers"),
        (put("speckle", [1, True]), "speckle is [1, True]"),
        (put("probe.depth", -80.0), "probe.depth is -80: it must be from 10 to 300"),
        (put("probe.axial", 0), "probe.axial is 0"),
        (put("display.dynamic_range", 0), "display.dynamic_range is 0"),
        (put("display.persistence", [0.5, 0.2, 0.2]), "display.persistence sums to 0.9"),
        (put("symphysis", [34, 0]), "symphysis is 0: it must be from 3 to 80"),
        (put("bladder", [0.0, 30.0]), "bladder is 0"),
        (put("urethra", 0), "urethra is 0"),
        (put("edge", [-15, -20]), "edge lies at a depth of -20 mm"),
        (put("neck", [200.0, 45.0]), "neck lies 200 mm beside the middle"),
        (put("verge", SUBJECT.parameters.junction), "verge and junction are 0.0 mm apart"),
        (put("meatus", SUBJECT.parameters.neck), "neck and meatus are 0.0 mm apart"),
        (put("manoeuvre.start", 0.9), "they must come in this order"),
        (put("manoeuvre.descent", 300), "manoeuvre.descent is 300: it must be from -30 to 60"),
        (put("manoeuvre.seed", -1), "manoeuvre.seed is -1"),
        (
            put("neck", [60.0, 45.0]),
            "bladder_neck lies outside of the sector|probe's",
        ),
        (put("neck", [-25.0, 15.0]), "is pressed into the symphysis"),
        (put("manoeuvre.descent", 40), "frame"),
    ],
)
def test_what_cannot_be_is_told_by_file_and_parameter(
    tmp_path: Path, edit: Edit, said: str
) -> None:
    path = edited(tmp_path, edit)
    with pytest.raises(InputError) as caught:
        read_subject(path, 4)
    told = f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.startswith(f"{path}: ") and caught.value.hint
    assert all(part in told for part in said.split("|")), told


@pytest.mark.parametrize("anatomy", ["pelvic", "heart"])
def test_an_impossible_probe_is_told_before_the_body_is_made(tmp_path: Path, anatomy: str) -> None:
    data = json.loads(subject_text(draw_subject(Identity(anatomy, 4, 2))))
    data["probe"]["depth"] = -80
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"probe\.depth is -80: it must be from 10 to 300"):
        read_subject(path, 4)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\xff", "[" * 100_000, '{"a": ' * 9999])
def test_what_is_no_subject_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="is") as caught:
        read_subject(path, 4)
    assert caught.value.hint


def test_a_path_that_leads_nowhere_and_a_name_that_no_clip_can_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_subject(tmp_path / "none.json", 4)
    with pytest.raises(InputError, match="is not a file"):
        read_subject(tmp_path, 4)
    big = tmp_path / "big.json"
    big.write_text(" " * (1 << 21))
    with pytest.raises(InputError, match="larger than"):
        read_subject(big, 4)
    named = edited(tmp_path, lambda data: None).rename(tmp_path / "a,b.json")
    with pytest.raises(InputError, match="its name would be the clip's"):
        read_subject(named, 4)
