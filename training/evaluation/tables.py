"""Tables of a report, in Markdown: rows of its record under columns that say where a cell lies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Column = tuple[str, str] | tuple[str, str, int]
"""Title, path of the cell in a row (names with dots between), digits of a number."""

METHODS = {"blur": "best blur", "flow": "dense flow", "another_seed": "another seed"}
_FIDELITY = {
    "l1_ratio": ("L1 ratio", 3),
    "low_pass_ratio": ("low-pass", 3),
    "sharpness": ("sharpness", 3),
    "motion_agreement": ("motion agr.", 3),
    "farneback_agreement": ("Farneback agr.", 3),
    "temporal_ratio": ("temp. ratio", 3),
    "temporal_correlation": ("temp. corr.", 3),
    "l1": ("L1", 4),
    "psnr": ("PSNR dB", 2),
    "ssim": ("SSIM", 3),
}


def table(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """A Markdown table; a dash where a row has nothing."""
    cells = [[_cell(row, *place) for _, *place in columns] for row in rows]
    return grid([title for title, *_ in columns], cells)


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of texts."""
    safe = ([text.replace("|", "\\|").replace("\n", " ") for text in row] for row in rows)
    lines = [head, ["---"] * len(head), *safe]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(row: Any, path: str, digits: int | None = None) -> str:
    for name in path.split("."):
        row = None if row is None else row.get(name)
    if digits is not None:
        return number(row, digits)
    return ("no", "yes")[row] if isinstance(row, bool) else "-" if row is None else str(row)


def fidelity(before: str = "") -> list[Column]:
    """All measures of fidelity; `before` their names in the path."""
    return [(title, before + name, digits) for name, (title, digits) in _FIDELITY.items()]


def measured(methods: Sequence[str], *names: str) -> list[Column]:
    """Measures of fidelity by name, each of several methods."""
    places = [(_FIDELITY[name], f"methods.{{}}.{name}") for name in names]
    found = (by_method(title, path, methods, digits) for (title, digits), path in places)
    return [column for columns in found for column in columns]


def by_method(title: str, path: str, methods: Sequence[str], digits: int = 3) -> list[Column]:
    """What lies at `path` for several methods: the first under `title`, others under their own."""
    titles = [title, *(METHODS.get(method, method) for method in methods[1:])]
    return [(t, path.format(m), digits) for t, m in zip(titles, methods, strict=True)]


def method_table(columns: Sequence[Column], rows: Mapping[str, Row]) -> str:
    """A table with a row for each method."""
    named = ({"method": METHODS.get(name, name), **row} for name, row in rows.items())
    return table([("method", "method"), *columns], named)


def landmarks(path: str, share: str, before: str = "") -> list[Column]:
    """The errors of landmarks at a path."""
    titles = {"model": "model", "hold": "hold", "oracle": "oracle", "truth": "tracker on truth"}
    columns = [(before + title, path + name, 2) for name, title in titles.items()]
    return [*columns, (f"{before}model / hold", share, 3)]


def number(value: float | None, digits: int = 3) -> str:
    """A number in a table; a dash where it is not defined."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(value: Row | None) -> str:
    """A mean with its interval, without it where there are too few subjects; a dash for None."""
    if value is None:
        return "-"
    mean, low, high = (number(value[name]) for name in ("mean", "low", "high"))
    return mean if low == "-" else f"{mean} [{low}, {high}]"


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)
