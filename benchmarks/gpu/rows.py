"""Rows of a report: how they are collected, timed and printed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from .child import Say

Row = dict[str, Any]
_TROUBLE = ("failed", "stopped", "left_out")


def each(
    say: Say,
    names: Sequence[str],
    done: Collection[str],
    work: Callable[[str], Row],
    alone: bool = False,
) -> None:
    """Report a row for every name that is not done. A CUDA error stays with its process, so this
    ends after a row that failed, and the caller starts another process for the rest.

    Args:
        work: makes the row of a name; what it raises is the row's failure.
        alone: end after every row.
    """
    todo = [name for name in names if name not in done]
    for name in todo:
        say({"begin": name})
        try:
            row = work(name)
        except Exception as error:  # from torch, CUDA, a compiler, a broken installation
            row = {"failed": said(error)}
        say({"row": {"name": name} | row})
        if (alone or "failed" in row) and name != todo[-1]:
            return
    say({"complete": True})


def said(error: BaseException) -> str:
    """An error in one line, with the error that caused it: leaving a failed capture raises another
    one."""
    first = error
    while before := first.__cause__ or (None if first.__suppress_context__ else first.__context__):
        first = before
    lines = [f"{type(e).__name__}: {e}".strip().splitlines()[0][:300] for e in (error, first)]
    return lines[0] if first is error else f"{lines[0]}; caused by {lines[1]}"


def trouble(row: Row) -> str:
    """Why a row, or a part, is incomplete; empty when it is complete."""
    return "; ".join(f"{word.replace('_', ' ')}: {row[word]}" for word in _TROUBLE if word in row)


def remarks(row: Row) -> str:
    """The words at the end of a row's line."""
    throttled = row.get("gpu", {}).get("throttled", False)
    return ("" if row.get("agrees", True) else "  DIFFERS") + ("  THROTTLED" if throttled else "")


def table(rows: Sequence[Row], title: str, columns: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Rows as text, one line each.

    Args:
        title: the heading of the rows' names.
        columns: by heading: the format, which begins with its width, and the value's keys in a row,
            with dots between them.
    """
    width = 2 + max(len(name) for name in (title, *(row["name"] for row in rows)))
    heads = (f"{head:>{form.partition('.')[0]}}" for head, (form, _) in columns.items())
    yield f"{title:<{width}}" + "".join(heads)
    for row in rows:
        missing = ("absent", "skipped")
        why = next((f"{word}: {row[word]}" for word in missing if word in row), trouble(row))
        cells = why or "".join(_cell(row, *column) for column in columns.values()) + remarks(row)
        yield f"{row['name']:<{width}}{cells}"


def _cell(row: Row, form: str, path: str) -> str:
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if value else None
    if isinstance(value, str):
        return f"  {value}"
    return f"{value:{form}}" if value is not None else f"{'-':>{form.partition('.')[0]}}"
