"""Means with intervals: a bootstrap over raters and cases at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 5000
LEVEL = 0.95
LEAST_RATERS, LEAST_CASES = 3, 3
SEED = 0

Values = NDArray[np.float64]
"""(raters, cases); nan where there is none."""


@dataclass(frozen=True)
class Estimate:
    """A mean of `count` values with its interval of LEVEL; `why` says why one of them is None, or
    that the interval says less than it seems to."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    count: int = 0
    why: str = ""


@dataclass(frozen=True)
class Draws:
    """How often each rater and each case is drawn: (DRAWS, raters) and (DRAWS, cases)."""

    raters: Values
    cases: Values

    @classmethod
    def of(cls, raters: int, cases: int) -> Draws:
        """Drawn with replacement, raters and cases each by themselves; too few raters all count."""
        rng = np.random.default_rng(SEED)
        ones = np.ones((DRAWS, raters))
        times = rng.multinomial(cases, np.full(cases, 1 / cases), DRAWS).astype(np.float64)
        if raters < LEAST_RATERS:
            return cls(ones, times)
        return cls(rng.multinomial(raters, ones[0] / raters, DRAWS).astype(np.float64), times)

    def weighted(self, values: Values) -> tuple[Values, Values]:
        """Of each draw the sum of the values, and their number."""
        there = np.isfinite(values)
        sums, numbers = (
            np.einsum("dr,rc,dc->d", self.raters, each, self.cases, optimize=True)
            for each in (np.where(there, values, 0), there.astype(np.float64))
        )
        return sums, numbers

    def mean(self, values: Values) -> Estimate:
        """The mean of all values, with its interval.

        Percentiles of the means of the draws, in which a value weighs as often as its rater was
        drawn times as often as its case was (Owen 2007, The pigeonhole bootstrap).
        """
        return self._estimate([values])

    def difference(self, values: Values, other: Values) -> Estimate:
        """The mean of values less the mean of others, which nothing pairs."""
        return self._estimate([values, other])

    def _estimate(self, parts: list[Values]) -> Estimate:
        counts = [int(np.isfinite(each).sum()) for each in parts]
        if not all(counts):
            return Estimate(None, why="no answers")
        means = [float(np.nanmean(each)) for each in parts]
        mean = means[0] - sum(means[1:])
        equal = all(np.nanmax(each) == np.nanmin(each) for each in parts)
        cases = min(int(np.isfinite(each).any(axis=0).sum()) for each in parts)
        if equal or cases < LEAST_CASES:
            why = "all values are equal" if equal else f"fewer than {LEAST_CASES} cases"
            return Estimate(mean, count=sum(counts), why=f"no interval: {why}")
        drawn = [self.weighted(each) for each in parts]
        usable = np.all([numbers > 0 for _, numbers in drawn], axis=0)
        found = [sums[usable] / numbers[usable] for sums, numbers in drawn]
        tail = 100 * (1 - LEVEL) / 2
        ends = np.percentile(found[0] - sum(found[1:]), [tail, 100 - tail])
        few = self.raters.shape[1] < LEAST_RATERS
        why = f"interval over cases alone: fewer than {LEAST_RATERS} raters" if few else ""
        return Estimate(mean, float(ends[0]), float(ends[1]), sum(counts), why)
