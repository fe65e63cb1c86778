"""The table itself: measures of every row over seeds, and their ratios to the baseline.

A figure is the mean over seeds of the mean over clips; its interval resamples subjects, each clip
with its mean over seeds, and a ratio's interval resamples both rows' clips together (paired).
Beside it stands the range of the seeds' means. Source: docs/method.md, "How it is judged".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..evaluation.loop import Row
from ..evaluation.means import subjects_of, weighted_ratio
from ..evaluation.report import aligned, cell, find, grid, number
from .plan import TablePlan

SEED = 0  # of the intervals

COMPARED = ("l1", "l1_ratio", "low_pass_ratio", "landmark")
"""Measures whose ratio to the baseline is shown, beside those of networks."""

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


class Column(NamedTuple):
    """A measure: where it is in a unit's row, and how it is read."""

    key: str
    title: str
    path: str  # in the row of a clip or pair
    less_is_better: bool | None = True  # None: 1 is best
    digits: int = 3


_FIDELITY = (
    Column("l1", "L1", "methods.model.l1", digits=4),
    Column("l1_ratio", "L1 ratio", "methods.model.l1_ratio"),
    Column("low_pass_ratio", "low-pass", "methods.model.low_pass_ratio"),
    Column("psnr", "PSNR", "methods.model.psnr", False, 2),
    Column("ssim", "SSIM", "methods.model.ssim", False),
    Column("sharpness", "sharpness", "methods.model.sharpness", None),
    Column("motion_agreement", "agreement", "methods.model.motion_agreement", False),
)
_FIELD = (
    Column("skill", "skill", "exact.skill.model", False),
    Column("landmark", "landmark px", "exact.landmark.model", digits=2),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "reconstruction": (*_FIDELITY, *_FIELD),
    "prediction": (*_FIELD, *_FIDELITY[:3], _FIDELITY[5]),
    "transfer": (Column("driving", "driver's speckle", "methods.model.driving"),),
    "tracking": (Column("error", "error px", "errors.model", digits=2),),
    "detection": (
        Column("error", "error px", "errors.model", digits=2),
        Column("constant", "constant answer px", "errors.constant", digits=2),
    ),
}
NOTHING = {"mean": math.nan, "low": math.nan, "high": math.nan}


class Figure(NamedTuple):
    """A measure of a row over seeds; `ratio` is to the baseline's."""

    value: Row  # mean, low, high
    seeds: list[float]
    ratio: Row | None


class Section(NamedTuple):
    """One evaluation of the table."""

    name: str
    task: str
    columns: list[Column]
    figures: dict[str, dict[str, Figure]]  # by row and column
    units: int
    unit: str


Records = Mapping[tuple[str, int], Row]
"""results.json of an evaluation, by row and seed."""


def make_section(name: str, task: str, records: Records, rows: Sequence[str], base: str) -> Section:
    """Sum up what the cells found in one evaluation."""
    some = next(iter(records.values()))
    unit = "pairs" if "pairs" in some else "clips"
    columns = [
        column
        for column in COLUMNS[task]
        if any(find(each, column.path) is not None for each in some[unit])
    ]
    sets = [Column(each["measure"], each["measure"], "") for each in some.get("distances", ())]
    found: dict[str, dict[str, Figure]] = {}
    for row in (each for each in rows if any(key[0] == each for key in records)):
        mine, other = (
            {seed: record for (owner, seed), record in records.items() if owner == each}
            for each in (row, base)
        )
        units = [{seed: record[unit] for seed, record in of.items()} for of in (mine, other)]
        found[row] = {column.key: _figure(column, *units) for column in columns}
        found[row] |= {column.key: _distance(column.key, mine, other) for column in sets}
    return Section(name, task, [*columns, *sets], found, len(some[unit]), unit)


def _distance(measure: str, mine: Mapping[int, Row], base: Mapping[int, Row]) -> Figure:
    """A measure of a network, which is of a whole evaluation: means over seeds of its value and of
    the ends of its interval."""

    def by_seed(runs: Mapping[int, Row]) -> dict[int, Row]:
        return {
            seed: {"mean": each["methods"]["model"].get("value"), **each["methods"]["model"]}
            for seed, record in runs.items()
            for each in record["distances"]
            if each["measure"] == measure
        }

    found, other = by_seed(mine), by_seed(base)
    value = {name: _mean([_number(row[name]) for row in found.values()]) for name in NOTHING}
    shared = found.keys() & other.keys()
    means = [_mean([_number(runs[seed]["mean"]) for seed in shared]) for runs in (found, other)]
    ratio = {**NOTHING, "mean": means[0] / means[1]} if shared and means[1] else None
    return Figure(value, [_number(row["mean"]) for row in found.values()], ratio)


def _figure(column: Column, mine: dict[int, list[Row]], base: dict[int, list[Row]]) -> Figure:
    def over_seeds(runs: Mapping[int, list[Row]]) -> list[float]:
        lists = [[_value(unit, column.path) for unit in units] for units in runs.values()]
        return [sum(values) / len(values) for values in zip(*lists, strict=True)]

    subjects = subjects_of(next(iter(mine.values())))
    values = over_seeds(mine)
    interval = weighted_ratio(subjects, values, [1.0] * len(values), SEED)
    means = [over_seeds({seed: units}) for seed, units in mine.items()]
    ratio = None
    if shared := mine.keys() & base.keys():
        both = ({seed: runs[seed] for seed in sorted(shared)} for runs in (mine, base))
        ratio = weighted_ratio(subjects, *map(over_seeds, both), SEED)
    return Figure(interval or NOTHING, [_mean(each) for each in means], ratio)


def _value(unit: Row, path: str) -> float:
    return _number(find(unit, path))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def markdown(plan: TablePlan, sections: Sequence[Section], missing: Sequence[str]) -> str:
    """The text of table.md."""
    scale = [f"{plan.size} pixels a side"] if plan.size else []
    scale += [f"all widths times {plan.width:g}"] if plan.width else []
    facts = ", ".join([*scale, f"seeds {', '.join(map(str, plan.seeds))}"])
    parts = [f"# {plan.title}", f"{facts[0].upper()}{facts[1:]}. Settings: `{' '.join(plan.set)}`"]
    if missing:
        parts.append(f"Not finished: {', '.join(missing)}.")
    for section in sections:
        parts.append(f"## {section.name.replace('_', ' ').capitalize()}")
        parts.append(f"{section.units} {section.unit}, task {section.task}.")
        head = ["", *(column.title for column in section.columns)]
        lines = [
            [row, *(_text(figures[c.key], c.digits) for c in section.columns)]
            for row, figures in section.figures.items()
        ]
        parts.append(grid(head, lines))
        if ratios := _ratios(plan, section):
            parts += [f"Ratios to {plan.baseline}:", ratios]
    return "\n\n".join([*parts, _NOTES]) + "\n"


_NOTES = """\
A figure is the mean over seeds of the mean over clips or pairs; in brackets its 95 % interval over
subjects, and after ± half the distance between the highest and the lowest seed. Ratios compare the
same clips and seeds. The paper measured its ratios on pelvic clips of its own. Beside a measure
that the paper does not have stands the paper's ratio of a similar one, with that one's name.

L1 ratio: L1 over that of a picture that does not move; low-pass: the same after a blur. Both: less
is better, and from 1 on the picture had better stand still. Agreement: of the motion, 1 is the
real one, 0 is none. Skill: 0 is not moving, 1 is the true motion. Landmark px: distance from the
true place. Sharpness: 1 is as sharp as the real frames. There is no interval below 3 subjects."""


def _text(figure: Figure, digits: int) -> str:
    low, high = (number(figure.value[name], digits) for name in ("low", "high"))
    text = number(figure.value["mean"], digits)
    if low != "-":
        text += f" [{low}, {high}]"
    if len(figure.seeds) > 1:
        text += f" ±{number((max(figure.seeds) - min(figure.seeds)) / 2, digits)}"
    return text


def _ratios(plan: TablePlan, section: Section) -> str:
    columns = [c for c in section.columns if c.key in COMPARED or not c.path]
    if plan.baseline not in section.figures or not columns:
        return ""
    lines = [
        [row, *(cell(figures[c.key].ratio) for c in columns)]
        for row, figures in section.figures.items()
        if row != plan.baseline
    ]
    kinds = [LIKE.get(c.key, c.key) for c in columns]
    paper = [PAPER.get((section.task, kind)) for kind in kinds]
    if any(paper):
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
                values += [min(figure.seeds), max(figure.seeds)]
                texts = ["" if not math.isfinite(value) else f"{value:.6g}" for value in values]
                writer.writerow([section.name, row, key, *texts])
    return stream.getvalue()


def terminal(sections: Sequence[Section]) -> str:
    """The table for the terminal: means alone."""
    parts = []
    for section in sections:
        head = [section.name, *(column.title for column in section.columns)]
        lines = [
            [row, *(number(figures[c.key].value["mean"], c.digits) for c in section.columns)]
            for row, figures in section.figures.items()
        ]
        parts.append(aligned([head, *lines]))
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
                "rows": {
                    row: {key: figure._asdict() for key, figure in figures.items()}
                    for row, figures in section.figures.items()
                },
            }
            for section in sections
        },
    }
