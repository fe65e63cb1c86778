"""A row of a report: what went wrong with it, in words."""

from __future__ import annotations

from typing import Any

_TROUBLE = ("failed", "stopped", "left_out")


def said(error: BaseException) -> str:
    """An error in one line, and the one that it all began with: leaving a capture that has failed
    raises another."""
    first = error
    while before := first.__cause__ or (None if first.__suppress_context__ else first.__context__):
        first = before
    lines = [f"{type(e).__name__}: {e}".strip().splitlines()[0][:300] for e in (error, first)]
    return lines[0] if first is error else f"{lines[0]}; it began with {lines[1]}"


def spoils(row: dict[str, Any]) -> bool:
    """Whether a row's process is in doubt, on a GPU: a CUDA error such as an illegal address stays
    with it, and a capture that failed leaves torch on its stream."""
    return "failed" in row or "failed" in row.get("launches", ())


def trouble(row: dict[str, Any]) -> str:
    """Why a row, or a part, has not all of its figures; empty where it has."""
    return "; ".join(f"{word.replace('_', ' ')}: {row[word]}" for word in _TROUBLE if word in row)


def remarks(row: dict[str, Any]) -> str:
    """What a row's line ends in."""
    throttled = row.get("gpu", {}).get("throttled", False)
    return ("" if row.get("agrees", True) else "  DIFFERS") + ("  THROTTLED" if throttled else "")
