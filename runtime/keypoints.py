"""Choices made from keypoints before a clip is animated: the scale and the reference frame.

Convention: points are (x, y) in [-1, 1], arrays (K, 2); K is the number of keypoints.
The transfer of motion itself is a stage of the bundle. Source: METHOD.md, "At inference".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32] | NDArray[np.float64]

SCALE_RANGE = (0.5, 2.0)
# Hulls below this area (a hundredth of the picture's side, squared) say nothing about size.
_SMALLEST_AREA = 4e-4


def hull_area(points: Points) -> float:
    """Area of the convex hull of (K, 2) points; the whole picture has area 4.

    Fewer than three points, or points on one line, have area 0.
    """
    ordered = sorted({(float(x), float(y)) for x, y in points})
    if len(ordered) < 3:
        return 0.0
    hull = _half_hull(ordered) + _half_hull(ordered[::-1])
    area = 0.0
    for (x0, y0), (x1, y1) in zip(hull, hull[1:] + hull[:1], strict=True):
        area += x0 * y1 - x1 * y0
    return abs(area) / 2


def _half_hull(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """One side of the hull (Andrew's monotone chain), without its last point."""
    side: list[tuple[float, float]] = []
    for x, y in ordered:
        while len(side) >= 2:
            (x0, y0), (x1, y1) = side[-2:]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                break
            side.pop()
        side.append((x, y))
    return side[:-1]


def hull_scale(source: Points, reference: Points) -> float:
    """How much larger the source's anatomy is: sqrt of the ratio of hull areas, within [0.5, 2].

    Args:
        source: (K, 2) keypoints of the source image.
        reference: (K, 2) keypoints of the reference driving frame.

    Returns:
        The factor s of p = p_S + s (p_D - p_R); 1 where a hull is too small to tell.
    """
    areas = hull_area(source), hull_area(reference)
    if min(areas) < _SMALLEST_AREA:
        return 1.0
    low, high = SCALE_RANGE
    return min(high, max(low, math.sqrt(areas[0] / areas[1])))


def reference_distance(source: Points, frame: Points) -> float:
    """How unlike the source's pose a driving frame's is, wherever they lie and however large.

    Sum over keypoints of |(p_R - mean) / sqrt(area_R) - (p_S - mean) / sqrt(area_S)|^2.

    Args:
        source: (K, 2) keypoints of the source image.
        frame: (K, 2) keypoints of the driving frame.
    """
    difference = _normalised(frame) - _normalised(source)
    return float(np.square(difference).sum())


def _normalised(points: Points) -> NDArray[np.float64]:
    area = max(hull_area(points), _SMALLEST_AREA)
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    normalised: NDArray[np.float64] = centred / math.sqrt(area)
    return normalised
