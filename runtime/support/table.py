"""Strict tables: CSV files whose every fault is reported with its file and line."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .errors import InputError

NAME_HINT = "a landmark's name has 1 to 100 characters that can be printed"


def spelling_hint(name: str, known: Iterable[str]) -> str:
    """A hint that names the likeliest spelling, or what there is."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(repr(k) for k in known[:8]) + (", ..." if len(known) > 8 else "")
    return f"known: {shown}" if known else "there is none"


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a strict CSV: (line number, row). The header holds `columns`, in any order.

    Raises:
        InputError: naming file and line: not UTF-8 text, a missing, unknown or repeated column, a
            row of another length.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header: list[str] | None = None
            for cells in reader:
                row = [cell.strip() for cell in cells]
                if not any(row):
                    continue
                where = f"{path}:{reader.line_num}"
                if header is None:
                    header = row
                    _check_header(where, header, columns)
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{where}: {len(row)} cells where the header has {len(header)}",
                        'quote a cell that holds commas: "210,43,727,579"',
                    )
                yield reader.line_num, dict(zip(header, row, strict=True))
            if header is None:
                raise InputError(
                    f"{path}: the file is empty", f"the first line must be {','.join(columns)}"
                )
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a CSV file: it holds bytes that are not UTF-8 text",
            "save it as plain UTF-8 CSV",
        ) from error
    except csv.Error as error:
        raise InputError(
            f"{path}: not a CSV file ({error})", "save it as plain UTF-8 CSV"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error})", "check the path"
        ) from error


def _check_header(where: str, header: Sequence[str], columns: Sequence[str]) -> None:
    hint = f"the first line must be {','.join(columns)}"
    if len(header) == 1 and (found := next((mark for mark in ";\t|" if mark in header[0]), "")):
        raise InputError(f"{where}: columns are divided by {found!r}, not by commas", hint)
    for column in header:
        if column not in columns:
            raise InputError(
                f"{where}: unknown column {column!r}; {spelling_hint(column, columns)}", hint
            )
    if len(set(header)) != len(header):
        raise InputError(f"{where}: a column appears twice", hint)
    for column in columns:
        if column not in header:
            raise InputError(f"{where}: column {column!r} is missing", hint)


def is_name(text: str) -> bool:
    """Whether a landmark can be called that: names are shown as they are, and drawn."""
    return 0 < len(text.strip()) == len(text) <= 100 and text.isprintable()


def number(where: str, column: str, text: str) -> float:
    """A cell as a finite number.

    Raises:
        InputError: naming `where`, the column and what stands there.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{where}: {column} is {text!r}",
            "coordinates are pixels of the original frame: numbers",
        )
    return value
