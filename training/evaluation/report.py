"""The report of an evaluation: rows of measures become JSON, tables and a summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...runtime.support.atomic_files import atomic_write_text
from .layouts import LAYOUTS
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


def make_record(
    command: str,
    candidate: Mapping[str, str],
    settings: Mapping[str, Any],
    rows: Sequence[Row],
    left_out: Sequence[tuple[str, str]] = (),
    warnings: Sequence[str] = (),
) -> Row:
    """What results.json holds, as plain JSON types; measures that are not defined are None.

    Args:
        candidate: `Candidate.facts`.
        rows: of clips or pairs.
        left_out: clips that could not be used, with the reason.
    """
    layout, seed = LAYOUTS[settings["task"]], settings["seed"]
    groups = {"all": rows}  # as the group of a bare folder is called
    for group in sorted({row["group"] for row in rows} - {"all"}):
        groups[group] = [row for row in rows if row["group"] == group]
    means = {group: layout.mean(rows, seed) for group, rows in groups.items()}
    pairs = layout.units == "pairs"
    record = {
        "format": FORMAT,
        "command": command,
        "candidate": candidate,
        "settings": {**settings, "flow": layout.flow},
        **({"means": means["all"], "groups": means} if pairs else {"means": means}),
        **layout.more(rows, seed),
        layout.units: rows,
        "left_out": [{"clip": clip, "reason": reason} for clip, reason in left_out],
        "warnings": warnings,
    }
    return dict(_plain(record))


def markdown(record: Row) -> str:
    """The text of table.md."""
    task = record["settings"]["task"]
    facts = {**record["candidate"], **record["settings"]}
    facts.pop("flow")
    parts = [f"# {task.capitalize()}", f"`{record['command']}`"]
    parts.append(bullets(f"{key}: {value}" for key, value in facts.items()))
    for heading, path, columns in LAYOUTS[task].tables:
        if text := table(rows_at(record, path), columns):
            parts += [f"## {heading}", text]
    if left_out := record["left_out"]:
        parts += ["## Left out", bullets(f"{one['clip']}: {one['reason']}" for one in left_out)]
    if record["warnings"]:
        parts += ["## Warnings", bullets(record["warnings"])]
    return "\n\n".join([*parts, "## How to read it", LAYOUTS[task].notes])


def summary(record: Row) -> str:
    """For the terminal: the main measures by group, worst first, and of other methods."""
    task = record["settings"]["task"]
    layout = LAYOUTS[task]
    means = dict(record.get("groups", record["means"]))
    overall, heads = means.pop("all"), layout.headlines
    groups = [(f"model, {group}", row, "model") for group, row in means.items()]

    def badness(group: tuple[str, Row, str]) -> float:
        value = find(group[1], heads[0].path.format("model"))
        return -math.inf if value is None else value if layout.high_is_bad else -value

    shown = sorted(groups, key=badness, reverse=True) if len(groups) > 1 else []
    shown.append(("model, all", overall, "model"))
    measured = overall.get("methods", overall.get("errors"))
    others = [method for method in _METHODS if method in measured]
    shown += [(_METHODS[method][0], overall, method) for method in others]
    lines = [["", layout.units, *(head.title for head in heads)]]
    for title, row, method in shown:
        values = [
            find(row, head.path.format(method)) if method == "model" or "{}" in head.path else None
            for head in heads
        ]
        texts = [number(value, head.digits) for value, head in zip(values, heads, strict=True)]
        lines.append([title, str(row[layout.units]), *texts])
    count = len(record[layout.units])
    units = layout.units if count > 1 else layout.units[:-1]
    parts = [f"{task.capitalize()}, {count} {units}. {layout.what}", "", aligned(lines), ""]
    parts += [f"{head.title}: {head.meaning}" for head in heads]
    parts += [": ".join(_METHODS[method]) for method in others]
    texts = [f"{title} {cell(find(overall, path))}" for title, path in layout.intervals]
    if any("[" in text for text in texts):
        parts.append(f"95% interval over subjects: {', '.join(texts)}")
    if record["left_out"]:
        parts.append(f"clips left out: {len(record['left_out'])}; table.md has the reasons")
    return "\n".join(parts)


def write(record: Row, folder: Path) -> None:
    """Write `results.json` and `table.md`, each whole. OutputError when they cannot be."""
    atomic_write_text(folder / "table.md", markdown(record))
    atomic_write_text(folder / "results.json", json_text(record))


def title_of(task: str, name: str, row: Row) -> str:
    """The title of a clip's or pair's pictures: its name and main measures."""
    texts = [f"{name}  "]
    for headline in LAYOUTS[task].headlines:
        value = find(row, headline.path.format("model").removesuffix(".mean"))
        if isinstance(value, float):
            texts.append(f"{headline.title} {number(value, headline.digits)}")
    return "  ".join(texts)


def json_text(record: Any) -> str:
    """A record as JSON text; what is not defined is null."""
    return json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Plain JSON types; numbers that are not finite become None."""
    return json.loads(json.dumps(value), parse_constant=lambda name: None)
