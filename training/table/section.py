"""What the cells found, summed up: measures of every row over seeds, their ratios to the baseline.

A figure is the mean over seeds of the mean over clips; its interval resamples subjects, each clip
with its mean over seeds, and a ratio's interval resamples both rows' clips together (paired).
Beside it stands the range of the seeds' means. Distances between sets (`fid`) are of a whole
evaluation: their intervals are means over seeds of the ends. Source: docs/method.md, "How it is
judged".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...runtime.support.errors import InputError
from ..evaluation.loop import Row
from ..evaluation.means import subjects_of, weighted_ratio
from ..evaluation.metrics import finite_mean, ratio
from ..evaluation.report import find

SEED = 0  # of the intervals


class Column(NamedTuple):
    """A measure: where it is in a unit's row, and how it is read."""

    key: str
    title: str
    path: str  # in the row of a clip or pair; "": a distance between sets
    less_is_better: bool | None = True  # None: 1 is best
    digits: int = 3
    compared: bool = False  # whether its ratio to the baseline is shown
    network: bool = False  # found by --network: four digits that count


_FIDELITY = (
    Column("l1", "L1", "methods.model.l1", digits=4, compared=True),
    Column("l1_ratio", "L1 ratio", "methods.model.l1_ratio", compared=True),
    Column("low_pass_ratio", "low-pass", "methods.model.low_pass_ratio", compared=True),
    Column("psnr", "PSNR", "methods.model.psnr", False, 2),
    Column("ssim", "SSIM", "methods.model.ssim", False),
    Column("sharpness", "sharpness", "methods.model.sharpness", None),
    Column("motion_agreement", "agreement", "methods.model.motion_agreement", False),
)
_FIELD = (
    Column("skill", "skill", "exact.skill.model", False),
    Column("landmark", "landmark px", "exact.landmark.model", digits=2, compared=True),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "reconstruction": (*_FIDELITY, *_FIELD),
    "prediction": (*_FIELD, *_FIDELITY[:3], _FIDELITY[5]),
    "transfer": (Column("driving", "driver's speckle", "methods.model.driving"),),
    "tracking": (Column("error", "error px", "errors.model", digits=2, compared=True),),
    "detection": (
        Column("error", "error px", "errors.model", digits=2, compared=True),
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
    terms: list[str]  # on which the rows differ


Records = Mapping[tuple[str, int], Row]
"""results.json of an evaluation, by row and seed."""


def make_section(name: str, task: str, records: Records, rows: Sequence[str], base: str) -> Section:
    """Sum up what the cells found in one evaluation.

    Raises:
        InputError: two of them have other clips, so they cannot be compared.
    """
    some = next(iter(records.values()))
    unit = "pairs" if "pairs" in some else "clips"
    units: dict[str, dict[int, list[Row]]] = {}  # by row and seed, in one order
    runs: dict[str, dict[int, Row]] = {}
    for (row, seed), record in records.items():
        if sorted(map(_name, record[unit])) != sorted(map(_name, some[unit])):
            (other, its), _ = next(iter(records.items()))
            fault = f"{name}: {row} (seed {seed}) and {other} (seed {its}) have other {unit}"
            raise InputError(fault, "the data was changed in between: remove the older results")
        units.setdefault(row, {})[seed] = sorted(record[unit], key=_name)
        runs.setdefault(row, {})[seed] = record
    columns = [
        column
        for column in COLUMNS[task]
        if any(find(each, column.path) is not None for each in some[unit])
    ]
    for each in some.get("distances", ()):
        measure, kind = each["measure"], each["statistic"]
        path = f"methods.model.perceptual.{measure}" if kind == "mean" else ""
        # A kernel distance of near 0, or below it, is no base of a ratio.
        columns.append(Column(measure, measure, path, compared=kind != "kernel", network=True))
    found = {
        row: {
            column.key: _figure(column, units[row], units.get(base, {}))
            if column.path
            else _distance(column, runs[row], runs.get(base, {}))
            for column in columns
        }
        for row in rows
        if row in runs
    }
    return Section(name, task, columns, found, len(some[unit]), unit, _terms(task, records, rows))


def _terms(task: str, records: Records, rows: Sequence[str]) -> list[str]:
    """What not all rows have alike: the kind of motion, and what aligned two subjects."""
    found = []
    terms = [("alignment of two subjects", "settings.alignment")]
    if task in ("reconstruction", "tracking"):
        terms = [("motion", "candidate.own_motion")]
    for title, path in terms:
        by_value: dict[str, list[str]] = {}
        for row in rows:
            values = {str(find(each, path)) for (owner, _), each in records.items() if owner == row}
            for value in sorted(values):
                by_value.setdefault(value, []).append(row)
        if len(by_value) > 1:
            parts = (f"{value} ({', '.join(names)})" for value, names in by_value.items())
            found.append(f"{title}: {'; '.join(parts)}")
    return found


def _name(unit: Row) -> str:
    return str(unit.get("pair") or unit["clip"])


def _distance(column: Column, mine: Mapping[int, Row], base: Mapping[int, Row]) -> Figure:
    """Of a distance between sets, which a whole evaluation has."""

    def by_seed(runs: Mapping[int, Row]) -> dict[int, Row]:
        return {
            seed: each["methods"]["model"]
            for seed, record in runs.items()
            for each in record.get("distances", ())
            if each["measure"] == column.key
        }

    found, other = by_seed(mine), by_seed(base)
    ends = {"mean": "value", "low": "low", "high": "high"}
    value = {
        name: finite_mean([_number(row[end]) for row in found.values()])
        for name, end in ends.items()
    }
    shared = found.keys() & other.keys()
    means = [finite_mean([_number(runs[s]["value"]) for s in shared]) for runs in (found, other)]
    return Figure(
        value,
        [_number(row["value"]) for row in found.values()],
        {**NOTHING, "mean": ratio(*means)} if shared else None,
    )


def _figure(column: Column, mine: Mapping[int, list[Row]], base: Mapping[int, list[Row]]) -> Figure:
    """Of a measure that each clip or pair has, all in the same order."""

    def over_seeds(runs: Mapping[int, list[Row]]) -> list[float]:
        lists = [[_number(find(unit, column.path)) for unit in units] for units in runs.values()]
        return [sum(values) / len(values) for values in zip(*lists, strict=True)]

    subjects = subjects_of(next(iter(mine.values())))
    values = over_seeds(mine)
    interval = weighted_ratio(subjects, values, [1.0] * len(values), SEED)
    means = [finite_mean(over_seeds({seed: units})) for seed, units in mine.items()]
    to_base = None
    if shared := mine.keys() & base.keys():
        top, bottom = (over_seeds({seed: runs[seed] for seed in shared}) for runs in (mine, base))
        to_base = weighted_ratio(subjects, top, bottom, SEED)
    return Figure(interval or NOTHING, means, to_base)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
