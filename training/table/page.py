"""The texts of a table: Markdown, CSV, JSON, and for the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from ..evaluation.loop import Row
from ..evaluation.report import aligned, cell, number
from ..markdown import bullets, grid
from .plan import BASELINE, TablePlan
from .section import Column, Figure, Section

#: The paper's Table 1, in-house pelvic data: PTG / FOMM.
PAPER = {
    ("reconstruction", "l1"): 0.90,
    ("reconstruction", "fid"): 0.91,
    ("reconstruction", "lpips"): 0.68,
    ("reconstruction", "fvd"): 0.80,
    ("transfer", "fid"): 0.94,
    ("transfer", "fvd"): 0.84,
}

#: Of which of the paper's measures these are a kind, or a stand-in.
LIKE = {
    "lpips_alex": "lpips",
    "lpips_vgg": "lpips",
    "vgg_distance": "lpips",
    "fd_squeeze": "fid",
    "fvd_squeeze": "fvd",
}


def markdown(plan: TablePlan, sections: Sequence[Section], missing: Sequence[str]) -> str:
    """The text of table.md."""
    scale = [f"{plan.size} pixels a side"] if plan.size else []
    scale += [f"all widths times {plan.width:g}"] if plan.width else []
    facts = ", ".join([*scale, f"seeds {', '.join(map(str, plan.seeds))}"])
    parts = [f"# {plan.title}", f"{facts[0].upper()}{facts[1:]}."]
    parts += [f"Settings: `{' '.join(plan.set)}`."] if plan.set else []
    of_some = [(each.name, (each.preset, *each.set)) for each in plan.rows]
    of_some += [(f"rows of the family {each.name}", each.set) for each in plan.families]
    if own := [f"{name}: `{text}`" for name, words in of_some if (text := " ".join(words).strip())]:
        parts.append(bullets(own))
    if missing:
        parts.append(f"Not finished: {', '.join(missing)}.")
    for section in sections:
        parts.append(f"## {section.name}")
        parts.append(f"{section.units} {section.unit}, task {section.task}.")
        if section.terms:
            parts += ["Rows differ in:", bullets(section.terms)]
        head = ["", *(column.title for column in section.columns)]
        lines = [
            [row, *(_text(c, figures[c.key]) for c in section.columns)]
            for row, figures in section.figures.items()
        ]
        parts.append(grid(head, lines))
        if ratios := _ratios(plan, section):
            parts += [f"Ratios to {plan.baseline}:", ratios]
    return "\n\n".join([*parts, _NOTES]) + "\n"


_NOTES = """\
A figure is the mean over seeds of the mean over clips or pairs; in brackets its 95 % interval over
subjects, and after ± half the distance between the highest and the lowest seed. Distances between
sets of frames (fid, fd_squeeze and the like) have the mean over seeds of the ends. Ratios compare
the same clips and seeds, which are resampled together. The paper measured its ratios on pelvic
clips of its own. Beside a measure that the paper does not have stands the paper's ratio of a
similar one, with that one's name.

L1 ratio: L1 over that of a picture that does not move; low-pass: the same after a blur. Both: less
is better, and from 1 on the picture had better stand still. Agreement: of the motion, 1 is the
real one, 0 is none. Skill: 0 is not moving, 1 is the true motion. Landmark px: distance from the
true place. Sharpness: 1 is as sharp as the real frames. There is no interval below 3 subjects."""


def _text(column: Column, figure: Figure) -> str:
    digits = digits_of(column, figure.value["mean"])
    mean, low, high = (number(figure.value[name], digits) for name in ("mean", "low", "high"))
    text = mean if low == "-" else f"{mean} [{low}, {high}]"
    least, most = _ends(figure.seeds)
    return f"{text} ±{number((most - least) / 2, digits)}" if len(figure.seeds) > 1 else text


def _ends(seeds: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest seed of those that have a value."""
    known = [mean for mean in seeds if math.isfinite(mean)] or [math.nan]
    return min(known), max(known)


def digits_of(column: Column, value: float) -> int:
    """How many digits after the point a value is shown with."""
    if not column.network or not math.isfinite(value) or value == 0:
        return column.digits
    return max(3 - math.floor(math.log10(abs(value))), 0)


def _ratios(plan: TablePlan, section: Section) -> str:
    columns = [c for c in section.columns if c.compared]
    lines = [
        [row, *(cell(figures[c.key].ratio) for c in columns)]
        for row, figures in section.figures.items()
        if row != plan.baseline
    ]
    if plan.baseline not in section.figures or not (columns and lines):
        return ""
    kinds = [LIKE.get(c.key, c.key) for c in columns]
    paper = [PAPER.get((section.task, kind)) for kind in kinds]
    preset = {row.name: row.preset or row.name for row in plan.rows}[plan.baseline]
    if preset == BASELINE and any(paper):
        texts = [
            f"{number(value, 2)} ({kind.upper()})" if kind != c.key and value else number(value, 2)
            for c, kind, value in zip(columns, kinds, paper, strict=True)
        ]
        lines.append(["the paper's PTG / FOMM", *texts])
    return grid(["", *(c.title for c in columns)], lines)


def csv_text(sections: Sequence[Section]) -> str:
    """The text of table.csv: one line for each row, evaluation and measure."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ("mean", "low", "high")
    heads = [*names, *(f"ratio_{name}" for name in names), "lowest_seed", "highest_seed"]
    writer.writerow(["evaluation", "row", "measure", *heads])
    for section in sections:
        for row, figures in section.figures.items():
            for key, figure in figures.items():
                values = [figure.value[name] for name in names]
                values += [figure.ratio[name] if figure.ratio else math.nan for name in names]
                values += _ends(figure.seeds)
                texts = ["" if not math.isfinite(value) else f"{value:.6g}" for value in values]
                writer.writerow([section.name, row, key, *texts])
    return stream.getvalue()


def terminal(sections: Sequence[Section]) -> str:
    """The table for the terminal: means alone."""
    parts = []
    for section in sections:
        lines = [[section.name, *(column.title for column in section.columns)]]
        for row, figures in section.figures.items():
            means = [(c, figures[c.key].value["mean"]) for c in section.columns]
            lines.append([row, *(number(mean, digits_of(c, mean)) for c, mean in means)])
        parts.append(aligned(lines))
    return "\n\n".join(parts)


def json_record(plan: Any, sections: Sequence[Section], missing: Sequence[str]) -> Row:
    """What table.json holds."""
    return {
        "plan": plan,
        "missing": list(missing),
        "evaluations": {
            section.name: {
                "task": section.task,
                section.unit: section.units,
                "rows_differ_in": section.terms,
                "rows": {
                    row: {key: figure._asdict() for key, figure in figures.items()}
                    for row, figures in section.figures.items()
                },
            }
            for section in sections
        },
    }
