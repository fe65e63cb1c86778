"""How far raters agree: Krippendorff's alpha for ordinal ratings, intraclass correlations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ratings = NDArray[np.float64]
"""(raters, clips); nan where there is no answer."""


class NotDefined(ValueError):
    """A measure that the ratings do not define; the text says why."""


def krippendorff_alpha(ratings: Ratings) -> float:
    """Krippendorff's alpha with the ordinal metric: 1 is agreement, 0 chance.

    Clips that fewer than two raters have rated do not count. Krippendorff 2011, Computing
    Krippendorff's Alpha-Reliability, section D (coincidences) and the ordinal metric of section F.

    Raises:
        NotDefined: no clip has two ratings, or all ratings that count are equal.
    """
    values = np.unique(ratings[np.isfinite(ratings)])
    counts = (ratings[:, :, None] == values).sum(axis=0)  # (clips, values)
    counts = counts[counts.sum(axis=1) >= 2].astype(np.float64)
    if not len(counts):
        raise NotDefined("no clip has been rated twice")
    pairs = counts.sum(axis=1) - 1
    coincidences = (counts / pairs[:, None]).T @ counts - np.diag((counts.T / pairs).sum(axis=1))
    totals = coincidences.sum(axis=1)
    # The squared distance of c and k: all ratings from c to k, those at the two ends by halves.
    upto = np.cumsum(totals) - totals / 2
    distances = np.square(upto[:, None] - upto)
    expected = float(totals @ distances @ totals / (totals.sum() - 1))
    if expected <= 0:
        raise NotDefined("all ratings are equal")
    return 1 - float((coincidences * distances).sum()) / expected


def intraclass_correlation(ratings: Ratings) -> tuple[float, float]:
    """ICC(2,1) and ICC(2,k): absolute agreement of one rater, and of the mean of these k.

    Two-way random effects, single ratings (Shrout and Fleiss 1979, case 2).

    Args:
        ratings: without gaps.

    Raises:
        NotDefined: fewer than two raters or clips, no variance, a denominator that is not positive.
    """
    raters, clips = ratings.shape
    if raters < 2:
        raise NotDefined("it takes two raters")
    if clips < 2:
        raise NotDefined("it takes two clips that all raters have rated")
    centre = ratings.mean()
    by_clip, by_rater = ratings.mean(axis=0), ratings.mean(axis=1)
    rest = ratings - by_clip - by_rater[:, None] + centre
    between_clips = raters * float(np.square(by_clip - centre).sum()) / (clips - 1)
    between_raters = clips * float(np.square(by_rater - centre).sum()) / (raters - 1)
    error = float(np.square(rest).sum()) / ((clips - 1) * (raters - 1))
    if np.ptp(ratings) == 0:
        raise NotDefined("all ratings are equal")
    top, of_raters = between_clips - error, (between_raters - error) / clips
    one = between_clips + (raters - 1) * error + raters * of_raters
    mean = between_clips + of_raters
    if min(one, mean) <= 1e-12:
        raise NotDefined("the clips' means do not differ")
    return top / one, top / mean
