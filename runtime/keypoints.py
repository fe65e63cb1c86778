"""What keypoints say about a pair before a clip is animated: scale and similarity of pose.

Convention: points are (x, y) in [-1, 1], arrays (K, 2) of K keypoints.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32] | NDArray[np.float64]

SCALE_RANGE = (0.5, 2.0)
# A hundredth of the picture's side, squared: smaller hulls say nothing about size.
_SMALLEST_AREA = 4e-4


def hull_area(points: Points) -> float:
    """Area of the points' convex hull, computed in float32; the whole picture has 4.

    Fewer than three points, or points on one line, have area 0.
    """
    import cv2

    hull = cv2.convexHull(points.astype(np.float32))  # None for some points that coincide
    return 0.0 if hull is None or len(hull) < 3 else float(cv2.contourArea(hull))


def hull_scale(source: Points, reference: Points) -> float:
    """How much larger the source's anatomy is: sqrt of the ratio of hull areas, in [0.5, 2].

    It is the factor s of p = p_S + s (p_D - p_R), and 1 if a hull is too small to tell.
    """
    areas = hull_area(source), hull_area(reference)
    if min(areas) < _SMALLEST_AREA:
        return 1.0
    return float(np.clip(math.sqrt(areas[0] / areas[1]), *SCALE_RANGE))


def reference_distance(source: Points, frame: Points) -> float:
    """How different the poses of source and driving frame are, whatever their place and size.

    Sum over keypoints of |(p_R - mean) / sqrt(area_R) - (p_S - mean) / sqrt(area_S)|^2.
    """

    def normalised(points: Points) -> NDArray[np.float64]:
        centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
        return np.asarray(centred / math.sqrt(max(hull_area(points), _SMALLEST_AREA)))

    return float(np.square(normalised(frame) - normalised(source)).sum())
