"""The report of an evaluation: rows of measures become JSON, tables and a summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...runtime.support.atomic_files import atomic_write_text
from .layouts import LAYOUTS, Layout
from .loop import Row
from .tables import aligned, bullets, cell, find, number, rows_at, table

FORMAT = 2
_METHODS = {
    "hold": ("not moved (hold)", "the still picture as it is"),
    "blur": ("best blur", "the still, not moved, blurred so that it fits best"),
    "flow": ("dense flow", "the still moved by optical flow, which sees the real frame"),
    "oracle": ("true motion (oracle)", "the still moved by the exact motion, which is known here"),
    "another_seed": ("other speckle", "the true result with speckle of another random seed"),
}
"""By method, its name in the summary and what it is."""


@dataclass(frozen=True)
class Report:
    """What was measured, and on what.

    Attributes:
        command: the command line.
        candidate: `Candidate.facts`.
        settings: task, data, split, crop, frames, seed.
        rows: of clips or pairs.
        left_out: clips that could not be used, with the reason.
        warnings: about the data.
    """

    command: str
    candidate: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: Sequence[Row]
    left_out: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()

    @property
    def layout(self) -> Layout:
        """The task's layout."""
        return LAYOUTS[self.settings["task"]]

    @cached_property
    def means(self) -> dict[str, Row]:
        """Of all rows ("all", as the group of a bare folder is called), then of each group."""
        groups = {"all": self.rows}
        for group in sorted({row["group"] for row in self.rows} - {"all"}):
            groups[group] = [row for row in self.rows if row["group"] == group]
        mean, seed = self.layout.mean, self.settings["seed"]
        return {group: plain(mean(rows, seed)) for group, rows in groups.items()}

    @cached_property
    def record(self) -> Row:
        """What results.json holds, as plain JSON types; measures that are not defined are None."""
        record = {
            "format": FORMAT,
            "command": self.command,
            "candidate": self.candidate,
            "settings": {**self.settings, "flow": self.layout.flow},
            **self.layout.measures(self.rows, self.means, self.settings["seed"]),
            "left_out": [{"clip": clip, "reason": reason} for clip, reason in self.left_out],
            "warnings": self.warnings,
        }
        return dict(plain(record))

    def to_json(self) -> str:
        """`record` as text."""
        return json_text(self.record)

    def to_markdown(self) -> str:
        """The text of table.md."""
        facts = {**self.candidate, **self.settings}
        parts = [f"# {self.layout.title}", f"`{self.command}`"]
        parts.append(bullets(f"{key}: {value}" for key, value in facts.items()))
        for heading, path, columns in self.layout.tables:
            if text := table(rows_at(self.record, path), columns):
                parts += [f"## {heading}", text]
        if self.left_out:
            parts += ["## Left out", bullets(f"{clip}: {why}" for clip, why in self.left_out)]
        if self.warnings:
            parts += ["## Warnings", bullets(self.warnings)]
        return "\n\n".join([*parts, "## How to read it", self.layout.notes])

    def summary(self) -> str:
        """For the terminal: the main measures by group, worst first, and of other methods."""
        layout, overall, count = self.layout, self.means["all"], len(self.rows)
        groups = [(f"model, {group}", row) for group, row in self.means.items() if group != "all"]
        first = layout.headlines[0].path.format("model")
        groups.sort(key=lambda group: _badness(group[1], first, layout.high_is_bad), reverse=True)
        shown = [(*group, "model") for group in groups if len(groups) > 1]
        shown += [("model, all", overall, "model")]
        measured = overall.get("methods", overall.get("errors"))
        others = [method for method in layout.others if method in measured]
        shown += [(_METHODS[method][0], overall, method) for method in others]
        lines = [["", layout.units, *(headline.title for headline in layout.headlines)]]
        for title, row, method in shown:
            texts = [
                number(find(row, h.path.format(method)), h.digits)
                if method == "model" or "{}" in h.path
                else "-"
                for h in layout.headlines
            ]
            lines.append([title, str(row[layout.units]), *texts])
        units = layout.units if count > 1 else layout.units[:-1]
        parts = [f"{layout.title}, {count} {units}. {layout.what}", "", aligned(lines), ""]
        parts += [f"{h.title}: {h.meaning}" for h in layout.headlines]
        parts += [": ".join(_METHODS[method]) for method in others]
        texts = [f"{title} {cell(find(overall, path))}" for title, path in layout.intervals]
        if any("[" in text for text in texts):
            parts.append(f"95% interval over subjects: {', '.join(texts)}")
        if self.left_out:
            parts.append(f"clips left out: {len(self.left_out)}; table.md has the reasons")
        return "\n".join(parts)

    def write(self, folder: Path) -> None:
        """Write `results.json` and `table.md`, each whole. OutputError when they cannot be."""
        markdown, record = self.to_markdown(), self.to_json()
        atomic_write_text(folder / "table.md", markdown)
        atomic_write_text(folder / "results.json", record)


def title_of(task: str, name: str, row: Row) -> str:
    """The title of a clip's or pair's pictures: its name and main measures."""
    texts = [f"{name}  "]
    for headline in LAYOUTS[task].headlines:
        value = find(row, headline.path.format("model").removesuffix(".mean"))
        if isinstance(value, float):
            texts.append(f"{headline.title} {number(value, headline.digits)}")
    return "  ".join(texts)


def _badness(row: Row, path: str, high_is_bad: bool) -> float:
    """A group's first measure, higher for worse; without one it is the least bad."""
    value = find(row, path)
    if value is None:
        return -math.inf
    return float(value if high_is_bad else -value)


def json_text(record: Any) -> str:
    """A record as JSON text; what is not defined is null."""
    return json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Plain JSON types: named tuples become mappings, numbers that are not finite None."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
