"""Intervals by a bootstrap over subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .metrics import ratio

DRAWS = 2000
LEVEL = 0.95
LEAST_SUBJECTS = 3


class Interval(NamedTuple):
    """A mean and its percentile interval of LEVEL."""

    mean: float
    low: float
    high: float


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
    counts = np.asarray(np.isfinite(values).all(axis=0))
    if not counts.any():
        return None
    values = values[:, counts]
    units = [sorted(set(unit)) for unit, used in zip(subjects, counts, strict=True) if used]
    mean = ratio(*values.sum(axis=1).tolist())
    names = sorted({name for unit in units for name in unit})
    if len(names) < LEAST_SUBJECTS:
        return Interval(mean, np.nan, np.nan)
    places = {name: i for i, name in enumerate(names)}
    draw = np.random.default_rng(seed)
    times = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    weights = np.stack(
        [times[:, [places[name] for name in unit]].prod(axis=1) for unit in units], axis=1
    )
    tops, bottoms = weights @ values[0], weights @ values[1]
    usable = (weights.sum(axis=1) > 0) & (bottoms > 0)
    if not usable.any():
        return Interval(mean, np.nan, np.nan)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(tops[usable] / bottoms[usable], [tail, 100 - tail])
    return Interval(mean, float(low), float(high))


def weighted_mean(
    subjects: Sequence[Sequence[str]], values: Sequence[float], seed: int
) -> Interval | None:
    """The mean over units, resampled like `weighted_ratio`."""
    return weighted_ratio(subjects, values, [1.0] * len(values), seed)
