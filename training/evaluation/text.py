"""Pieces of a report: Markdown tables, lists, numbers, plain JSON types."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .intervals import Interval


def number(value: float, digits: int = 3) -> str:
    """A number in a table; a dash where it is not defined."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def interval(value: Interval | None, digits: int = 3) -> str:
    """A mean with its interval, without it where there are too few subjects; a dash for None."""
    if value is None:
        return "-"
    mean = number(value.mean, digits)
    if not math.isfinite(value.low):
        return mean
    return f"{mean} [{number(value.low, digits)}, {number(value.high, digits)}]"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def bullets(lines: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def remarks(left_out: Sequence[tuple[str, str]], warnings: Sequence[str], notes: str) -> list[str]:
    """The end of a report: what was left out, what was warned of, how to read it."""
    parts = []
    if left_out:
        parts += ["## Left out", bullets([f"{clip}: {why}" for clip, why in left_out])]
    if warnings:
        parts += ["## Warnings", bullets(warnings)]
    return [*parts, "## How to read it", notes.strip()]


def json_text(record: Any) -> str:
    """A record as JSON; what is not defined is null."""
    return json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Containers copied, tuples as lists, numbers that JSON does not know as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
