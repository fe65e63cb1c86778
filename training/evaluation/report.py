"""The report of an evaluation: rows of measures become JSON, tables and a summary."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..markdown import bullets, grid
from .layouts import DISTANCE_NOTES, DISTANCES, LAYOUTS
from .loop import Row

FORMAT = 2
_OTHERS = {
    "hold": ("not moved (hold)", "the still picture as it is"),
    "blur": ("best blur", "the still, not moved, blurred so that it fits best"),
    "flow": ("dense flow", "the still moved by optical flow, which sees the real frame"),
    "oracle": ("true motion (oracle)", "the still moved by the exact motion, which is known here"),
    "another_seed": ("other speckle", "the true result with speckle of another random seed"),
    "absolute": ("absolute motion", "the same model, whose motion is not relative"),
}
"""By method, its name in the summary and what it is."""
_NAMES = {
    "model": "model",
    "hold": "hold",
    "blur": "best blur",
    "flow": "dense flow",
    "oracle": "oracle",
    "another_seed": "another seed",
    "absolute": "absolute",
    "truth": "tracker on truth",
    "composed": "composed",
    "enlarged": "enlarged",
}
_WORDS = _NAMES | {
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
    "lpips_alex": "LPIPS, AlexNet",
    "lpips_vgg": "LPIPS, VGG16",
    "fid": "FID",
    "kid": "KID",
    "fvd": "FVD",
}
_UNSAID = {"methods", "exact", "own_size", "mean"}


def make_record(
    command: str,
    candidate: Mapping[str, str],
    settings: Mapping[str, Any],
    rows: Sequence[Row],
    left_out: Sequence[tuple[str, str]] = (),
    warnings: Sequence[str] = (),
    distances: Sequence[Row] | None = None,
) -> Row:
    """What results.json holds, as plain JSON types; measures that are not defined are None.

    Args:
        candidate: `Candidate.facts`.
        rows: of clips or pairs.
        left_out: clips that could not be used, with the reason.
        distances: see `judge`; None without networks.
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
        **({} if distances is None else {"distances": distances}),
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
    distances = record.get("distances", [])
    for heading, columns in DISTANCES if distances else ():
        methods = ",".join(dict.fromkeys(name for row in distances for name in row["methods"]))
        if text := table(distances, columns.replace("METHODS", methods)):
            parts += [f"## {heading}", text]
    if left_out := record["left_out"]:
        parts += ["## Left out", bullets(f"{one['clip']}: {one['reason']}" for one in left_out)]
    if record["warnings"]:
        parts += ["## Warnings", bullets(record["warnings"])]
    parts += ["## How to read it", LAYOUTS[task].notes]
    return "\n\n".join([*parts, DISTANCE_NOTES] if distances else parts)


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
    others = [method for method in _OTHERS if method in measured]
    shown += [(_OTHERS[method][0], overall, method) for method in others]
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
    parts += [": ".join(_OTHERS[method]) for method in others]
    texts = [f"{title} {cell(find(overall, path))}" for title, path in layout.intervals]
    if any("[" in text for text in texts):
        parts.append(f"95% interval over subjects: {', '.join(texts)}")
    if record.get("distances"):
        parts += ["", aligned(_distance_lines(record["distances"]))]
    if record["left_out"]:
        parts.append(f"clips left out: {len(record['left_out'])}; table.md has the reasons")
    return "\n".join(parts)


def _distance_lines(distances: Sequence[Row]) -> list[list[str]]:
    methods = dict.fromkeys(name for row in distances for name in row["methods"])
    lines = [["distance from the real frames", *(_NAMES.get(name, name) for name in methods), "of"]]
    for row in distances:
        count = f"{row['windows']} windows" if row["windows"] else f"{row['frames']} frames"
        values = (row["methods"].get(name) or {} for name in methods)
        texts = [cell(value.get("value", value.get("mean"))) for value in values]
        lines.append([row["measure"], *texts, count])
    return lines


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
        return [{"name": _NAMES.get(name, name), **row} for name, row in found.items() if row]
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
    parts.sort(key=lambda part: part in _NAMES)
    return ", ".join(_WORDS.get(part, part.replace("_", " ")) for part in parts)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def cell(value: Any) -> str:
    """A value in a table: an interval in brackets, a dash for what is not defined."""
    if isinstance(value, Mapping):
        first = "value" if "value" in value else "mean"
        mean, low, high = (cell(value[name]) for name in (first, "low", "high"))
        return mean if low == "-" else f"{mean} [{low}, {high}]"
    if isinstance(value, bool):
        return ("no", "yes")[value]
    if isinstance(value, float):
        return number(value, 4 if 0 < abs(value) < 0.1 else 3)
    return "-" if value is None else str(value)


def number(value: float | None, digits: int) -> str:
    """A number; a dash where it is not defined."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
