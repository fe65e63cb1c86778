"""Tables of a report: rows of its record under columns named by their paths."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_METHODS = {
    "model": "model",
    "hold": "hold",
    "blur": "best blur",
    "flow": "dense flow",
    "oracle": "oracle",
    "another_seed": "another seed",
    "truth": "tracker on truth",
    "composed": "composed",
    "enlarged": "enlarged",
}
_WORDS = _METHODS | {
    "l1": "L1",
    "l1_ratio": "L1 ratio",
    "low_pass_ratio": "low-pass",
    "farneback_agreement": "Farneback agreement",
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "mean_flow": "flow px",
    "driven": "frames",
    "endpoint_error": "endpoint px",
    "endpoint_hold": "endpoint px, hold",
    "leakage": "NCC",
}
_UNSAID = {"methods", "exact", "own_size", "mean"}


def find(row: Any, path: str) -> Any:
    """The value at a path (`methods.model.l1`) in a row; None without one."""
    for name in path.split("."):
        row = row.get(name) if isinstance(row, Mapping) else None
    return row


def rows_at(record: Any, path: str) -> list[Any]:
    """The row at a path; with `.*` at its end, all rows of the list or mapping (with a `name`)."""
    found = find(record, path.removesuffix(".*"))
    if not path.endswith(".*"):
        return [found] if found else []
    if isinstance(found, Mapping):
        return [{"name": _METHODS.get(name, name), **row} for name, row in found.items() if row]
    return list(found or [])


def table(rows: Sequence[Any], columns: str) -> str:
    """A Markdown table, without rows that have only a name; empty if no row is left.

    Args:
        columns: paths with spaces between; `methods.{model,hold}.l1` stands for two.
    """
    paths = [path for word in columns.split() for path in expand(word)]
    texts = [[cell(find(row, path)) for path in paths] for row in rows]
    texts = [line for line in texts if set(line[1:]) != {"-"}]
    return grid(map(_title, paths), texts) if texts else ""


def expand(path: str) -> list[str]:
    """The paths that a path with alternatives in braces stands for."""
    parts = [part.split(",") for part in re.split("[{}]", path)]
    return ["".join(names) for names in itertools.product(*parts)]


def _title(path: str) -> str:
    """The measure, then the method, e.g. `methods.blur.l1_ratio`: L1 ratio, best blur."""
    parts = [part for part in path.split(".") if part not in _UNSAID]
    parts.sort(key=lambda part: part in _METHODS)
    return ", ".join(_WORDS.get(part, part.replace("_", " ")) for part in parts)


def grid(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of texts."""
    lines = [list(head), *rows]
    safe = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in lines]
    safe.insert(1, ["---"] * len(safe[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in safe)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def cell(value: Any) -> str:
    """A value in a table: an interval in brackets, a dash for what is not defined."""
    if isinstance(value, Mapping):
        mean, low, high = (cell(value[name]) for name in ("mean", "low", "high"))
        return mean if low == "-" else f"{mean} [{low}, {high}]"
    if isinstance(value, bool):
        return ("no", "yes")[value]
    if isinstance(value, float):
        return number(value, 4 if 0 < abs(value) < 0.1 else 3)
    return "-" if value is None else str(value)


def number(value: float | None, digits: int) -> str:
    """A number; a dash where it is not defined."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)
