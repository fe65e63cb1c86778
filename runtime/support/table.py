"""Strict tables: CSV files whose every fault is reported with its file and line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .dataclass_parser import nearest
from .errors import InputError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
NAME_HINT = "a landmark's name has 1 to 100 printable characters"


def spelling_hint(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest known name, or with all of them when none is near."""
    if "\\" in name:
        return "write paths with / between folders, not with \\"
    known = sorted(set(known))
    if close := nearest(name, known):
        return f"did you mean {close!r}?"
    shown = ", ".join(repr(k) for k in known[:8]) + (", ..." if len(known) > 8 else "")
    return f"known: {shown}" if known else "there is none"


def read_table(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a strict CSV: (line number, row). The header holds `columns`, in any order, and may
    hold `optional` ones.

    Raises:
        InputError: naming file and line: not UTF-8 text, a missing, unknown or repeated column, a
            row of another length.
    """
    header: list[str] = []
    hint = f"save it as plain UTF-8 CSV whose first line is {','.join(columns)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                row = [cell.strip() for cell in cells]
                where = f"{path}:{reader.line_num}"
                if not any(row):
                    continue
                if not header:
                    if fault := _header_fault(row, columns, optional):
                        raise InputError(f"{where}: {fault}", _separator_hint(row) or hint)
                    header = row
                elif len(row) == len(header):
                    yield reader.line_num, dict(zip(header, row, strict=True))
                else:
                    raise InputError(
                        f"{where}: {len(row)} cells where the header has {len(header)}",
                        'quote a cell that holds commas: "210,43,727,579"',
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError) and error.object[:2] in _UTF_16:
            hint = "it is UTF-16, which Excel calls Unicode text: save it as CSV UTF-8, with commas"
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error})", hint) from error
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason})", "check the path") from error
    if not header:
        raise InputError(f"{path}: the file is empty", hint)


def _separator_hint(header: list[str]) -> str:
    """What to do about a header of one cell that holds the separator of another kind of table."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            return f"its cells are separated by {name}, as Excel does in many countries: use commas"
    return ""


def _header_fault(header: list[str], columns: Sequence[str], optional: Sequence[str]) -> str | None:
    known = [*columns, *optional]
    for column in header:
        if column not in known:
            one = len(header) == 1
            close = "are the cells separated by commas?" if one else spelling_hint(column, known)
            return f"unknown column {column[:40]!r}; {close}"
    for column in known:
        if header.count(column) != 1 and (column in columns or column in header):
            return f"column {column!r} {'appears twice' if column in header else 'is missing'}"
    return None


def is_name(text: str) -> bool:
    """Whether a landmark may have that name: names are printed and drawn as they are."""
    return 0 < len(text.strip()) == len(text) <= 100 and text.isprintable()


def number(
    where: str, column: str, text: str,
    hint: str = "coordinates are pixels of the original frame: numbers",
) -> float:  # fmt: skip
    """A cell as a finite number.

    Raises:
        InputError: naming `where`, the column and the cell.
    """
    try:
        if math.isfinite(value := float(text)):
            return value
    except ValueError:
        pass
    raise InputError(f"{where}: {column} is {text[:40]!r}", hint)
