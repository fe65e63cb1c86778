"""The report of an evaluation: a record for programs (JSON) and tables for people (Markdown)."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ...runtime.support.atomic_files import atomic_write_text
from .tables import bullets

FORMAT = 2


@dataclass(frozen=True)
class Report(ABC):
    """What `results.json` holds; each task adds its own measures, tables and explanations.

    Attributes:
        command: the command line.
        candidate: what was evaluated, with digest and versions (`Candidate.facts`).
        settings: task, data, split, crop, frames, seed.
        results: per clip or pair.
        left_out: (clip, reason) of clips that count in no mean.
        warnings: what the dataset said.
    """

    command: str
    candidate: Mapping[str, str]
    settings: Mapping[str, Any]
    results: Sequence[Any]
    left_out: Sequence[tuple[str, str]]
    warnings: Sequence[str]

    title: ClassVar[str]
    flow: ClassVar[str]
    """Where the flow comes from, for the settings of results.json."""
    notes: ClassVar[str]
    """How to read the tables."""

    @abstractmethod
    def measures(self) -> dict[str, Any]:
        """The task's own keys of results.json."""

    @abstractmethod
    def tables(self) -> list[str]:
        """The task's own parts of table.md."""

    @abstractmethod
    def summary_line(self) -> str:
        """What matters most in one line, for the terminal."""

    @cached_property
    def record(self) -> dict[str, Any]:
        """The report as plain JSON types; measures that are not defined are None."""
        record = {
            "format": FORMAT,
            "command": self.command,
            "candidate": self.candidate,
            "settings": {**self.settings, "flow": self.flow},
            **self.measures(),
            "warnings": self.warnings,
        }
        return {key: plain(value) for key, value in record.items()}

    def to_json(self) -> str:
        """`record` as text."""
        return json_text(self.record)

    def to_markdown(self) -> str:
        """What was asked for, the tables, what was left out, and how to read them."""
        facts = {**self.candidate, **self.settings}
        parts = [f"# {self.title}", f"`{self.command}`"]
        parts += [bullets(f"{key}: {value}" for key, value in facts.items()), *self.tables()]
        if self.left_out:
            parts += ["## Left out", bullets(f"{clip}: {why}" for clip, why in self.left_out)]
        if self.warnings:
            parts += ["## Warnings", bullets(self.warnings)]
        return "\n\n".join([*parts, "## How to read it", self.notes])

    def write(self, folder: Path) -> None:
        """Write `results.json` and `table.md`, each whole. OutputError when they cannot be."""
        markdown, record = self.to_markdown(), self.to_json()
        atomic_write_text(folder / "table.md", markdown)
        atomic_write_text(folder / "results.json", record)


def by_group(results: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    """All results, then those of each group by its name (a bare folder's is called "all", too)."""
    groups = sorted({result.group for result in results})
    return [("all", results), *((g, [r for r in results if r.group == g]) for g in groups)]


def json_text(record: Any) -> str:
    """A record as JSON; what is not defined is null."""
    return json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Rows as mappings, tuples as lists, numbers that JSON does not know as null."""
    if is_dataclass(value):
        value = vars(value)
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
