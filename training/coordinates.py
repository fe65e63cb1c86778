"""Pixels and points: where a place in an image lies in [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # labels and clips are looked at without torch, too
    from torch import Tensor

_ArrayLike = TypeVar("_ArrayLike", "Tensor", Any)


def pixels_to_points(
    pixels: _ArrayLike, size: _ArrayLike, geometry: str = "half_pixel"
) -> _ArrayLike:
    """Pixel coordinates (..., 2), (x, y), 0 is the centre of the first pixel, to points in [-1, 1].

    Args:
        size: (2,) tensor or array, (width, height), or one number for a square.
        geometry: ``half_pixel``, ``fomm_aligned`` or ``fomm_unaligned`` (models/geometry.py).
    """
    return (2 * pixels + 1) / size - 1 if geometry == "half_pixel" else 2 * pixels / (size - 1) - 1


def points_to_pixels(
    points: _ArrayLike, size: _ArrayLike, geometry: str = "half_pixel"
) -> _ArrayLike:
    """The inverse of :func:`pixels_to_points`; same shapes."""
    half = geometry == "half_pixel"
    return ((points + 1) * size - 1) / 2 if half else (points + 1) * (size - 1) / 2
