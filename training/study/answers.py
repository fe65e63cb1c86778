"""The answers of one rater: a CSV file with a line for each clip in the order of showing."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...runtime.support.atomic_files import atomic_write_text
from ...runtime.support.errors import ConfigError, InputError
from ...runtime.support.table import number, read_table
from .study_folder import NAME_RULE, SCALE, Study, is_name

T = TypeVar("T")
COLUMNS = ("order", "position", "clip", "rating", "real", "comment", "seconds", "answered")
_RATINGS: dict[str, int | None] = {"": None} | {str(value): value for value in SCALE}
_WORDS = {True: "real", False: "synthetic", None: ""}


@dataclass(frozen=True)
class Answer:
    """What was said about a clip; nothing yet by default.

    Attributes:
        rating: on the SCALE.
        real: whether it was taken for real.
        seconds: how long it was looked at, all visits together.
        answered: when the rating, `real` or the comment last changed, UTC, ISO 8601.
    """

    rating: int | None = None
    real: bool | None = None
    comment: str = ""
    seconds: float = 0.0
    answered: str = ""


@dataclass(frozen=True)
class Sheet:
    """All answers of a rater: the number of the order, from 1, and an answer per position."""

    rater: str
    order: int
    answers: tuple[Answer, ...]


def answers_file(folder: Path, rater: str) -> Path:
    """Where the answers of a rater are."""
    return folder / "answers" / f"{rater}.csv"


def raters_of(folder: Path) -> list[str]:
    """Who has a file of answers, by name."""
    files = (folder / "answers").glob("*.csv")
    return sorted(file.stem for file in files if not file.name.startswith("."))


def write_sheet(folder: Path, study: Study, sheet: Sheet) -> None:
    """Write the answers of a rater, whole and synced to the disk.

    Raises:
        OutputError: it cannot be written; then the file is as it was.
    """
    table = csv.writer(text := io.StringIO(), lineterminator="\n")
    table.writerow(COLUMNS)
    clips = study.orders[sheet.order - 1]
    for position, (clip, answer) in enumerate(zip(clips, sheet.answers, strict=True), 1):
        rating = "" if answer.rating is None else answer.rating
        said = (rating, _WORDS[answer.real], answer.comment)
        table.writerow(
            (sheet.order, position, clip, *said, f"{answer.seconds:.1f}", answer.answered)
        )
    atomic_write_text(answers_file(folder, sheet.rater), text.getvalue())


def read_sheet(path: Path, study: Study) -> Sheet:
    """The answers in a file; a position that has no line counts as not answered.

    Raises:
        InputError: the file is not called as a rater can be; naming file and line: no table of
            answers, a clip that is not in the study or not at that position, a position that is
            there twice, two orders in one file, a rating that is not on the scale.
    """
    if not is_name(path.stem):
        raise InputError(f"{path}: {path.stem!r} is no rater's name", f"it has {NAME_RULE}")
    answers: dict[int, Answer] = {}
    order = 0
    for line, row in read_table(path, COLUMNS):
        where = f"{path}:{line}"
        before, order = order, _whole(where, "order", row["order"], len(study.orders))
        if before not in (0, order):
            raise InputError(
                f"{where}: order {order} after order {before}", "a rater has one order"
            )
        clips = study.orders[order - 1]
        if row["clip"] not in clips:
            fault = f"{where}: the clip {row['clip'][:40]!r} is not in this study"
            raise InputError(fault, "do these answers belong to another study?")
        position = _whole(where, "position", row["position"], len(clips))
        if position in answers:
            raise InputError(f"{where}: position {position} is there twice", "keep one of them")
        if clips[position - 1] != row["clip"]:
            fault = f"{where}: order {order} shows another clip at position {position}"
            raise InputError(fault, "the table was changed: bring back the original file")
        answers[position] = Answer(
            _one_of(where, "rating", row["rating"], _RATINGS),
            _one_of(where, "real", row["real"], {word: said for said, word in _WORDS.items()}),
            row["comment"],
            number(where, "seconds", row["seconds"] or "0", "seconds are a number"),
            row["answered"],
        )
    if not order:
        raise InputError(f"{path}: it has no answers", "remove it, or bring back the original file")
    count = len(study.orders[order - 1])
    return Sheet(path.stem, order, tuple(answers.get(i, Answer()) for i in range(1, count + 1)))


def claim(folder: Path, study: Study, rater: str) -> Sheet:
    """The answers of a rater so far; a new rater gets the first order that nobody has.

    Raises:
        ConfigError: a name that cannot be one, no order is left.
        InputError: as `read_sheet`, also for the answers of others.
    """
    if not is_name(rater):
        raise ConfigError(f"{rater[:60]!r} cannot be a rater's name", f"it has {NAME_RULE}")
    there = {name: answers_file(folder, name) for name in raters_of(folder)}
    if rater in there:
        return read_sheet(there[rater], study)
    taken = {read_sheet(path, study).order: name for name, path in there.items()}
    free = [order for order in range(1, len(study.orders) + 1) if order not in taken]
    if not free:
        known = ", ".join(sorted(there))
        raise ConfigError(
            f"{rater} is new, but all {len(study.orders)} orders of this study are taken: {known}",
            "give one of these names to go on, or plan more with `sonomime study make --raters N`",
        )
    sheet = Sheet(rater, free[0], (Answer(),) * len(study.orders[free[0] - 1]))
    write_sheet(folder, study, sheet)
    return sheet


def _whole(where: str, column: str, text: str, most: int) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most:
        return int(text)
    raise InputError(f"{where}: {column} is {text[:40]!r}", f"a whole number from 1 to {most}")


def _one_of(where: str, column: str, text: str, known: dict[str, T]) -> T:
    if text in known:
        return known[text]
    shown = ", ".join(filter(None, known))
    raise InputError(f"{where}: {column} is {text[:40]!r}", f"{shown}, or nothing: no answer")
