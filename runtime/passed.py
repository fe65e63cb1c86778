"""What passes from a driving frame, put on a source: read where the alignment says, and scaled.

The same as the end of a bundle's `transfer` stage, in numpy, for motion that comes from a template
and not from a frame. Source: `put` in training/models/matching/transfer.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .session import own_places

Values = NDArray[np.float32]


def put_on_source(
    passed: Mapping[str, Values], alignment: Values, scale: float, shade: float
) -> dict[str, Values]:
    """Displacement (1, n, n, 2), confidence (1, 1, n, n) and shading (1, 1, m, m), as far as they
    are there, for a source.

    Args:
        alignment: (1, n, n, 2), points: where in the reference the source's cells lie.
    """
    displacement = passed["displacement"][0]
    rows, columns = displacement.shape[:2]
    own = own_places(rows, columns)[0]
    moved = read_at(displacement, alignment[0])
    before = own + scale * moved
    place = before - read_at(own - alignment[0], before) - moved
    found = {"displacement": scale * read_at(displacement, place)[None]}
    if "confidence" in passed:
        confidence = read_at(passed["confidence"][0].transpose(1, 2, 0), place)
        found["confidence"] = confidence.transpose(2, 0, 1)[None]
    if "shading" in passed:
        shading = passed["shading"][0].transpose(1, 2, 0)
        m, k = shading.shape[:2]
        coarser = place.reshape(m, rows // m, k, columns // k, 2).mean(axis=(1, 3))
        light = shade * min(scale, 1.0) * read_at(shading, coarser)
        found["shading"] = light.transpose(2, 0, 1)[None]
    return {name: value.astype(np.float32) for name, value in found.items()}


def read_at(values: NDArray[np.floating], places: NDArray[np.floating]) -> NDArray[np.float64]:
    """Values (h, w, C) at points (..., 2), between cells bilinear, outside as at the border."""
    height, width = values.shape[:2]
    sides = np.array([width, height])
    at = np.clip(((places.astype(np.float64) + 1) * sides - 1) / 2, 0, sides - 1)
    low = np.minimum(at.astype(int), np.maximum(sides - 2, 0))
    x, y = np.moveaxis(at - low, -1, 0)[..., None]
    (left, top), (right, below) = np.moveaxis(low, -1, 0), np.moveaxis(low + (sides > 1), -1, 0)
    upper = (1 - x) * values[top, left] + x * values[top, right]
    lower = (1 - x) * values[below, left] + x * values[below, right]
    return np.asarray((1 - y) * upper + y * lower)
