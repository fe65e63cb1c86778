"""Means over clips or pairs: of fidelity, and of what only an exact field allows, with intervals
over subjects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from .fidelity import Fidelity
from .intervals import DRAWS, LEVEL, weighted_mean, weighted_ratio
from .landmarks import mean_error
from .metrics import Leakage, finite_mean, ratio
from .reconstruction import OwnSizeMeasures
from .tables import Row, bullets, interval, landmarks, method_table, number, table

Measures = TypeVar("Measures", Fidelity, Leakage, OwnSizeMeasures)


def summarise(results: Sequence[Any], seed: int) -> dict[str, Any] | None:
    """The means over clips or pairs (their `subjects` and `exact`) that have an exact field.

    See `intervals.weighted_ratio` for what is resampled.

    Returns:
        units: how many; l1, skill: by method; model_skill, landmark_ratio: the model's, with
        intervals over subjects, the ratio that of mean errors; endpoint_error, endpoint_hold: in
        pixels; landmarks: mean errors by name, over the units that have it; landmark: over all of
        them. None if none has a field.
    """
    units = [result for result in results if result.exact is not None]
    if not units:
        return None
    subjects = [unit.subjects for unit in units]
    facts = [unit.exact for unit in units]
    means = [exact.landmark for exact in facts]
    tops = [math.nan if mean is None else mean.model for mean in means]
    bottoms = [math.nan if mean is None else mean.hold for mean in means]
    names = sorted({name for exact in facts for name in exact.landmarks})
    return {
        "units": len(units),
        "l1": {m: finite_mean([exact.l1[m] for exact in facts]) for m in facts[0].l1},
        "skill": {m: finite_mean([exact.skill[m] for exact in facts]) for m in facts[0].skill},
        "model_skill": weighted_mean(subjects, [exact.skill["model"] for exact in facts], seed),
        "landmark_ratio": weighted_ratio(subjects, tops, bottoms, seed),
        "endpoint_error": finite_mean([exact.endpoint_error for exact in facts]),
        "endpoint_hold": finite_mean([exact.endpoint_hold for exact in facts]),
        "landmarks": {
            name: mean_error(e.landmarks[name] for e in facts if name in e.landmarks)
            for name in names
        },
        "landmark": mean_error(mean for mean in means if mean is not None),
    }


def summary_parts(summary: Row) -> list[str]:
    """The parts of a report, from the summary's record: intervals, methods, landmarks by name."""
    pixels = [number(summary[name], 2) for name in ("endpoint_error", "endpoint_hold")]
    facts = [
        f"skill of the model: {interval(summary['model_skill'])}",
        f"landmark error, model / hold: {interval(summary['landmark_ratio'])}",
        f"endpoint error of the deformation: {pixels[0]} px (hold {pixels[1]})",
        f"in brackets: {LEVEL:.0%} over subjects, {DRAWS} draws; none below 3 subjects",
    ]
    skills = {m: {"l1": summary["l1"][m], "skill": skill} for m, skill in summary["skill"].items()}
    methods = method_table([("L1 in sector", "l1", 4), ("skill", "skill", 3)], skills)
    parts = [bullets(facts), methods]
    if summary["landmark"] is not None:
        errors = [*summary["landmarks"].items(), ("all", summary["landmark"])]
        rows = [{"name": n, **e, "share": ratio(e["model"], e["hold"])} for n, e in errors]
        parts.append(table([("landmark error, px", "name"), *landmarks("", "share")], rows))
    return parts


def mean_methods(results: Sequence[Any]) -> dict[str, Any]:
    """The means over clips or pairs, by the methods that any of them has."""
    names = dict.fromkeys(name for result in results for name in result.methods)
    rows = [result.methods for result in results]
    return {name: mean_of([row[name] for row in rows if name in row]) for name in names}


def mean_of(rows: Sequence[Measures]) -> Measures | None:
    """The mean of each measure over the rows in which it is finite, else nan; None for no row."""
    if not rows:
        return None
    return type(rows[0])(*(finite_mean(column) for column in np.array(rows, np.float64).T))
