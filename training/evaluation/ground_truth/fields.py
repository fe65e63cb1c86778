"""Exact motion of the tissue between two frames, from a phantom's displacement fields.

Convention: a field D_t is float32 (H, W, 2), xy in pixels: tissue seen at x in frame t is at
x + D_t(x) in the clip's frame 0. A flow F(x->S) is one between two frames: frame(x) is S(x + F(x)).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ....runtime.media.frames import Crop, Letterbox
from ...data.flow import same_tissue
from ..metrics import FloatImage, Mask, length, pixel_grid, read_at

TOLERANCE = 0.01
"""A point of `flow_between` counts as found when it misses the tissue by less, in pixels."""
_ROUNDS, _LONGEST = 24, 4.0  # |slope| reaches 8 in a phantom: many rounds, short steps (pixels)


def flow_between(driving: FloatImage, source: FloatImage) -> tuple[FloatImage, Mask]:
    """F(x->S) from the fields D_d and D_s (H, W, 2) of a driving frame and a source frame.

    Returns:
        y - x (H, W, 2) with y + D_s(y) = x + D_d(x), and where it is found to within TOLERANCE
        inside of the source frame (H, W).
    """
    height, width = driving.shape[:2]
    grid = pixel_grid(height, width).reshape(-1, 2).astype(np.float64)
    target = grid + driving.reshape(-1, 2)
    y, found = same_tissue(source.astype(np.float64), target, grid, TOLERANCE, _ROUNDS, _LONGEST)
    found &= ((y >= 0) & (y <= (width - 1, height - 1))).all(axis=1)
    return (y - grid).astype(np.float32).reshape(driving.shape), found.reshape(height, width)


def carried(flow: FloatImage, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], Mask]:
    """Where a frame shows points (N, 2) of the source: z with z + F(z) = p.

    Returns:
        z (N, 2), and where it is found inside of the frame to within TOLERANCE (N,); elsewhere z is
        the pixel that reads nearest to the point.
    """
    height, width = flow.shape[:2]
    field = flow.astype(np.float64)
    z, found = same_tissue(field, points, points, TOLERANCE, _ROUNDS, _LONGEST)
    found &= ((z >= -0.5) & (z <= (width - 0.5, height - 0.5))).all(axis=1)
    for i in np.flatnonzero(~found):
        miss = length(pixel_grid(height, width) + flow - points[i].astype(np.float32))
        z[i] = np.unravel_index(np.argmin(miss), miss.shape)[::-1]
    return z, found


def to_model_frame(field: FloatImage, crop: Crop | None, box: Letterbox) -> FloatImage:
    """A field (H, W, 2) in the model's frame (S, S, 2), in its pixels; zero in the padding."""
    at, inside = _original_pixels(crop, box)
    scale = np.array([box.w / box.width, box.h / box.height], np.float32)
    read = read_at(field, at, border=cv2.BORDER_REPLICATE) * scale
    return np.where(inside[..., None], read, np.float32(0))


def mask_in_model_frame(mask: Mask, crop: Crop | None, box: Letterbox) -> Mask:
    """A mask (H, W) in the model's frame (S, S); False in the padding."""
    at, inside = _original_pixels(crop, box)
    return (read_at(mask.astype(np.float32), at) > 0.5) & inside


def points_in_model_frame(
    points: NDArray[np.floating], crop: Crop | None, box: Letterbox
) -> NDArray[np.float64]:
    """Pixels (..., 2) of the original frame as pixels of the model's frame."""
    return box.to_square(np.asarray(points, np.float64) - (crop or (0, 0))[:2])


def _original_pixels(crop: Crop | None, box: Letterbox) -> tuple[FloatImage, Mask]:
    """Where each pixel of the model's frame lies in the original one, and whether it does."""
    picture = box.to_picture(pixel_grid(box.size, box.size))
    inside = ((picture >= -0.5) & (picture <= np.array([box.width, box.height]) - 0.5)).all(-1)
    return (picture + (crop or (0, 0))[:2]).astype(np.float32), inside
