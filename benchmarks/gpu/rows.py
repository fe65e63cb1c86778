"""A row of a report: how long its frames took, what went wrong with it, in words and in lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from ..measure import summarise
from .state import Watch

Row = dict[str, Any]
_TROUBLE = ("failed", "stopped", "left_out")


def timed(loop: Callable[[int], Sequence[float]], count: int, gpu: bool) -> Row:
    """The times of `count` frames after some to warm up, and what the GPU did meanwhile.

    Args:
        loop: makes so many frames and tells the seconds of each.
    """
    with Watch() as watch:
        loop(max(2, count // 10))
        seconds = loop(count)
    row = {"frame_ms": asdict(summarise(seconds)), "frames_per_second": 1 / median(seconds)}
    return row | ({"gpu": watch.summary} if gpu else {})


def said(error: BaseException) -> str:
    """An error in one line, and the one that it all began with: leaving a capture that has failed
    raises another."""
    first = error
    while before := first.__cause__ or (None if first.__suppress_context__ else first.__context__):
        first = before
    lines = [f"{type(e).__name__}: {e}".strip().splitlines()[0][:300] for e in (error, first)]
    return lines[0] if first is error else f"{lines[0]}; it began with {lines[1]}"


def spoils(row: Row) -> bool:
    """Whether a row's process is in doubt, on a GPU: a CUDA error such as an illegal address stays
    with it, and a capture that failed leaves torch on its stream."""
    return "failed" in row or "failed" in row.get("launches", ())


def trouble(row: Row) -> str:
    """Why a row, or a part, has not all of its figures; empty where it has."""
    return "; ".join(f"{word.replace('_', ' ')}: {row[word]}" for word in _TROUBLE if word in row)


def remarks(row: Row) -> str:
    """What a row's line ends in."""
    throttled = row.get("gpu", {}).get("throttled", False)
    return ("" if row.get("agrees", True) else "  DIFFERS") + ("  THROTTLED" if throttled else "")


def table(
    rows: Sequence[Row], key: str, title: str, width: int, columns: Mapping[str, tuple[str, str]]
) -> Iterator[str]:
    """Rows for a person, a line each.

    Args:
        key: what a row goes by.
        title: above those names; `width`: the room for them.
        columns: by what stands above a column, its format, which begins with its width, and what
            of a row it shows: keys with dots between them.
    """
    heads = (f"{head:>{form.partition('.')[0]}}" for head, (form, _) in columns.items())
    yield f"{title:<{width}}" + "".join(heads)
    for row in rows:
        why = f"absent: {row['absent']}" if "absent" in row else trouble(row)
        cells = (_cell(row, *column) for column in columns.values())
        yield f"{row[key]:<{width}}" + (f"  {why}" if why else "".join(cells) + remarks(row))


def _cell(row: Row, form: str, path: str) -> str:
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if value else None
    if isinstance(value, str):
        return f"  {value}"
    return f"{value:{form}}" if value is not None else f"{'-':>{form.partition('.')[0]}}"
