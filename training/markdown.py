"""Markdown of reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def grid(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    lines = [list(head), *rows]
    safe = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in lines]
    safe.insert(1, ["---"] * len(safe[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in safe)


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)
