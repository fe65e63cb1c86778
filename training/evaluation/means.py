"""Means over the rows of clips or pairs, with intervals by a bootstrap over subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from . import tasks, tracking
from .loop import Row
from .metrics import finite_mean, ratio
from .tracking import mean_error

DRAWS = 2000
LEVEL = 0.95
LEAST_SUBJECTS = 3

Interval = dict[str, float]
"""A mean, and low and high of its percentile interval of LEVEL."""


def weighted_ratio(
    subjects: Sequence[Sequence[str]], top: Sequence[float], bottom: Sequence[float], seed: int
) -> Interval | None:
    """sum w top / sum w bottom over units (clips, pairs), resampled over subjects.

    Subjects are drawn with replacement; a unit's weight w is the product of how often each of its
    subjects was drawn. Percentile interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        subjects: of each unit; a subject that is named twice counts once.
        top, bottom: of each unit; units with one that is not finite are left out.

    Returns:
        the plain ratio with low and high, both nan with fewer than LEAST_SUBJECTS subjects; None
        when no unit counts.
    """
    values = np.array([top, bottom], np.float64)
    counts = np.isfinite(values).all(axis=0)
    if not counts.any():
        return None
    values = values[:, counts]
    units = [set(unit) for unit, used in zip(subjects, counts, strict=True) if used]
    mean = ratio(*values.sum(axis=1).tolist())
    names = sorted(set().union(*units))
    low = high = np.nan
    if len(names) >= LEAST_SUBJECTS:
        draw = np.random.default_rng(seed)
        times = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
        columns = [[names.index(name) for name in unit] for unit in units]
        weights = np.stack([times[:, column].prod(axis=1) for column in columns], axis=1)
        tops, bottoms = weights @ values[0], weights @ values[1]
        usable = (weights.sum(axis=1) > 0) & (bottoms > 0)
        tail = 100 * (1 - LEVEL) / 2
        if usable.any():
            low, high = np.percentile(tops[usable] / bottoms[usable], [tail, 100 - tail]).tolist()
    return {"mean": mean, "low": low, "high": high}


def average(trees: Sequence[Row]) -> Row:
    """Means of the numbers in nested rows, over the rows in which they are finite; else nan."""
    means: Row = {}
    for name in dict.fromkeys(name for tree in trees for name in tree):
        values = [tree[name] for tree in trees if name in tree]
        nested = isinstance(values[0], Mapping)
        means[name] = average(values) if nested else finite_mean(values)
    return means


def subjects_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The subjects of each clip or pair."""
    keys = ("subject", "source_subject", "driving_subject")
    return [tuple(row[key] for key in keys if key in row) for row in rows]


def _exact_means(rows: Sequence[Row], seed: int) -> Row | None:
    """Means of what needs an exact field, `model_skill` and `landmark_ratio` with intervals; None
    without a field."""
    units = [row for row in rows if row["exact"]]
    if not units:
        return None
    exacts, subjects = [unit["exact"] for unit in units], subjects_of(units)
    errors = [exact["landmark"] or {} for exact in exacts]
    tops, bottoms = ([error.get(m, math.nan) for error in errors] for m in ("model", "hold"))
    plain = ("l1", "skill", "endpoint_error", "endpoint_hold")
    landmarks = [exact["landmarks"] for exact in exacts]
    skills = [exact["skill"]["model"] for exact in exacts]
    return {
        "units": len(units),
        **average([{name: exact[name] for name in plain} for exact in exacts]),
        "model_skill": weighted_ratio(subjects, skills, [1] * len(units), seed),
        "landmark_ratio": weighted_ratio(subjects, tops, bottoms, seed),
        "landmarks": {
            name: mean_error(each[name] for each in landmarks if name in each)
            for name in sorted({name for each in landmarks for name in each})
        },
        "landmark": mean_error(error for error in errors if error),
    }


def over_clips(rows: Sequence[Row], seed: int) -> Row:
    """Of reconstructions."""
    tested = [row for row in rows if row["leakage"]]
    leaking = [row["clip"] for row in tested if row["leakage"]["leaks"]]
    leakage = average([row["leakage"] for row in tested])
    if leakage:
        leakage["leaks"] = tasks.leaks(leakage)
    sized = [row["own_size"]["methods"] for row in rows if row["own_size"]]
    return {
        "clips": len(rows),
        "methods": average([row["methods"] for row in rows]),
        "leakage": leakage or None,
        "leaking": leaking,
        "clips_leaking": len(leaking) if tested else None,
        "exact": _exact_means(rows, seed),
        "own_size": {"clips": len(sized), "methods": average(sized)} if sized else None,
    }


def over_pairs(rows: Sequence[Row], seed: int) -> Row:
    """Of predictions."""
    methods = average([row["methods"] for row in rows])
    return {"pairs": len(rows), "methods": methods, "exact": _exact_means(rows, seed)}


def by_subject(rows: Sequence[Row], seed: int) -> Row:
    """Of predictions, what needs an exact field: by each source's and each driver's subject."""

    def by(key: str) -> Row:
        names = sorted({row[key] for row in rows})
        return {n: _exact_means([row for row in rows if row[key] == n], seed) for n in names}

    return {"subjects": {role: by(f"{role}_subject") for role in ("source", "driving")}}


def over_transfers(rows: Sequence[Row], seed: int) -> Row:
    """Of transfers; `leaks` is the share of the pairs."""
    return {"pairs": len(rows), "methods": average([row["methods"] for row in rows])}


def over_tracks(rows: Sequence[Row], seed: int) -> Row:
    """Of tracked clips; `ratio` has intervals."""
    trees = [row["errors"] for row in rows]
    errors, holds = average(trees), [tree["hold"] for tree in trees]
    return {
        "clips": len(rows),
        "errors": errors,
        "share": tracking.shares(errors),
        "ratio": {
            name: weighted_ratio(subjects_of(rows), [tree[name] for tree in trees], holds, seed)
            for name in ("model", "flow")
        },
        "lost": finite_mean([row["lost"] for row in rows]),
    }


def over_detections(rows: Sequence[Row], seed: int) -> Row:
    """Of clips whose landmarks were detected; `error` and `ratio` have intervals."""
    trees, subjects = [row["errors"] for row in rows], subjects_of(rows)
    errors = average(trees)
    model, constant = ([tree[name] for tree in trees] for name in ("model", "constant"))
    return {
        "clips": len(rows),
        "errors": errors,
        "share": {"model": ratio(errors["model"], errors["constant"])},
        "error": weighted_ratio(subjects, model, [1.0] * len(rows), seed),
        "ratio": {"model": weighted_ratio(subjects, model, constant, seed)},
    }


def by_point(rows: Sequence[Row], seed: int) -> Row:
    """Of clips with labelled points, by point."""
    points: dict[str, Row] = {}
    for name in sorted({name for row in rows for name in row["points"]}):
        found = [row["points"][name] for row in rows if name in row["points"]]
        errors = average(found)
        points[name] = {"clips": len(found), "errors": errors}
        if "hold" in errors:
            points[name]["share"] = tracking.shares(errors)
    return {"points": points}
