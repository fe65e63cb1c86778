"""Statistics of speckle that can be taken of any clip, simulated or real."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ...evaluation.metrics import blur, clip_mask, finite_mean, high_pass, ncc, to_float

Frames = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_BINS = (0.1, 0.2, 0.3, 0.4, 0.5)
_FEWEST = 500  # pixels in a bin
_LAGS = 24  # pixels
_INSIDE = 6  # pixels from the sector's border


def texture(runs: Sequence[Frames]) -> dict[str, float]:
    """Statistics of one clip by name; nan where one is not defined.

    Grey is from 0 to 1, lengths are pixels of the 256x256 frame.

    Args:
        runs: of neighbouring frames, each (T, H, W).
    """
    sector = lit_part(np.concatenate(runs))
    kernel = np.ones((2 * _INSIDE + 1,) * 2, np.uint8)
    black = cv2.BORDER_CONSTANT  # beyond the picture, whose edge then is the sector's
    inside = cv2.erode(sector.astype(np.uint8), kernel, borderType=black, borderValue=0) > 0
    left, right = np.flatnonzero(inside.any(axis=0))[[0, -1]]
    third = (right - left) // 3
    middle = inside.copy()  # where a curved array's beams run down the picture
    middle[:, : left + third] = middle[:, right - third :] = False
    first = [to_float(run[0]) for run in runs]
    fine = [high_pass(grey) for grey in first]
    levels = np.concatenate([blur(grey, 4.0)[inside] for grey in first])
    squares = np.concatenate([np.square(high[inside]) for high in fine])
    pixels = np.concatenate([grey[sector] for grey in first])
    neighbours = [
        ncc(a, b, sector) for run in runs for a, b in pairwise(high_pass(to_float(f)) for f in run)
    ]
    values = {}
    for low, high in pairwise(_BINS):
        bin_ = squares[(levels >= low) & (levels < high)]
        deviation = float(np.sqrt(bin_.mean())) if len(bin_) > _FEWEST else np.nan
        values[f"high-pass deviation at mean grey {low} to {high}"] = deviation
    values |= {
        "width of a speckle along the beam": float(np.mean([_width(h, middle) for h in fine])),
        "width across the beam": float(np.mean([_width(h.T, middle.T) for h in fine])),
        "high-pass correlation of neighbouring frames": finite_mean(neighbours),
    }
    for percent in (10, 50, 90, 99):
        values[f"grey: percentile {percent}"] = float(np.percentile(pixels, percent))
    return values | {"share of the sector below 0.02": float((pixels < 0.02).mean())}


def lit_part(frames: Frames) -> Mask:
    """The sector (H, W) of a clip that does not say where it is: the convex hull of what is not
    black, without small marks."""
    lit = clip_mask(frames).astype(np.uint8)
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    hull = cv2.convexHull(cv2.findNonZero(lit))
    return cv2.fillConvexPoly(np.zeros_like(lit), hull, 1) > 0


def _width(high: NDArray[np.float32], mask: Mask) -> float:
    """Full width at half maximum of the autocorrelation along the first axis, pixels."""
    before = 1.0
    for lag in range(1, _LAGS):
        now = ncc(high[:-lag], high[lag:], mask[:-lag] & mask[lag:])
        if now < 0.5:
            return 2 * (lag - 1 + (before - 0.5) / (before - now))
        before = now
    return np.nan
