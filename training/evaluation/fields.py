"""Exact motion of the tissue: where a phantom's field says that a frame is read in another one.

Convention: a field D_t is float32 (H, W, 2), xy in pixels: tissue seen at x in frame t is at
x + D_t(x) in the clip's frame 0. A flow F(x->S) is one between two frames: frame(x) is S(x + F(x)).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.frames import Crop, Letterbox
from .metrics import FloatImage, Mask, pixel_grid, read_at

TOLERANCE = 0.01
"""A point of `flow_between` counts as found when it misses the tissue by less, in pixels."""
MAX_STEP = 8.0
_STEPS = 40
_LEAST_AREA = 0.05

_Points = NDArray[np.float64]


def flow_between(driving: FloatImage, source: FloatImage) -> tuple[FloatImage, Mask]:
    """F(x->S) from the fields of a driving frame and a source frame of one clip.

    Solves y + D_s(y) = x + D_d(x) for y by Newton's iteration from y = x, with D_s and its slope
    read bilinearly; a pixel's step is at most MAX_STEP, and halved wherever the miss did not
    shrink. (The plain iteration y <- x + D_d(x) - D_s(y) swings where tissue is stretched:
    |grad D_s| reaches 8 in a phantom. OpenCV's remap rounds to 1/32 pixel, too coarse there.)

    Args:
        driving, source: D_d and D_s, (H, W, 2); borders are repeated.

    Returns:
        y - x (H, W, 2), and where it is found to within TOLERANCE (H, W): not where the tissue is
        outside of the source frame.
    """
    height, width = driving.shape[:2]
    grid = pixel_grid(height, width).reshape(-1, 2).astype(np.float64)
    wanted = grid + driving.reshape(-1, 2)
    y = grid.copy()
    miss = wanted - y - _bilinear(source, y)[0]
    step = np.ones(len(y))
    for _ in range(_STEPS):
        at = np.flatnonzero(_norm(miss) >= TOLERANCE)
        if not len(at):
            break
        move = _newton(source, y[at], miss[at])
        tried = y[at] + step[at, None] * move
        left = wanted[at] - tried - _bilinear(source, tried)[0]
        better = _norm(left) < _norm(miss[at])
        y[at[better]], miss[at[better]] = tried[better], left[better]
        step[at] = np.where(better, np.minimum(2 * step[at], 1), step[at] / 2)
    inside = ((y >= 0) & (y <= (width - 1, height - 1))).all(axis=1)
    known = (_norm(miss) < TOLERANCE) & inside
    flow = (y - grid).astype(np.float32).reshape(height, width, 2)
    return flow, known.reshape(height, width)


def _newton(source: FloatImage, y: _Points, miss: _Points) -> _Points:
    """The step that a linear field would need, (N, 2), not longer than MAX_STEP."""
    _, across, down = _bilinear(source, y)
    a, b, c, d = 1 + across[:, 0], down[:, 0], across[:, 1], 1 + down[:, 1]
    size = a * d - b * c
    size = np.where(np.abs(size) < _LEAST_AREA, np.copysign(_LEAST_AREA, size), size)
    x, z = miss.T
    move = np.stack([(d * x - b * z) / size, (a * z - c * x) / size], axis=1)
    far = _norm(move)[:, None]
    return np.asarray(move * np.minimum(1, MAX_STEP / np.maximum(far, 1e-9)))


def _bilinear(field: FloatImage, at: _Points) -> tuple[_Points, _Points, _Points]:
    """A field (H, W, 2) at points (N, 2), with its slopes along x and along y, (N, 2) each."""
    height, width = field.shape[:2]
    x, y = np.clip(at[:, 0], 0, width - 1), np.clip(at[:, 1], 0, height - 1)
    i, j = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    u, v = (x - i)[:, None], (y - j)[:, None]
    flat, place = field.reshape(-1, 2), j * width + i
    top, bottom = flat[place], flat[place + width]
    across_top, across_bottom = flat[place + 1] - top, flat[place + width + 1] - bottom
    upper, lower = top + u * across_top, bottom + u * across_bottom
    return upper + v * (lower - upper), (1 - v) * across_top + v * across_bottom, lower - upper


def _norm(vectors: _Points) -> _Points:
    return np.asarray(np.hypot(vectors[:, 0], vectors[:, 1]))


def to_model_frame(field: FloatImage, crop: Crop | None, box: Letterbox) -> FloatImage:
    """A field of the original frame (H, W, 2) in the model's frame (S, S, 2), in its pixels.

    Read bilinearly, zero in the padding; as it is where the two frames are the same.
    """
    if crop is None and (box.width, box.height) == (box.size, box.size):
        return field
    scale = np.array([box.w / box.width, box.h / box.height], np.float32)
    at, inside = _original_pixels(crop, box)
    read = _read(field, at) * scale
    return np.where(inside[..., None], read, np.float32(0))


def mask_in_model_frame(mask: Mask, crop: Crop | None, box: Letterbox) -> Mask:
    """A mask of the original frame (H, W) in the model's frame (S, S); False in the padding."""
    if crop is None and (box.width, box.height) == (box.size, box.size):
        return mask
    at, inside = _original_pixels(crop, box)
    read = read_at(mask.astype(np.float32), at)
    return np.asarray(read > 0.5) & inside


def points_in_model_frame(
    points: NDArray[np.floating], crop: Crop | None, box: Letterbox
) -> NDArray[np.float64]:
    """Pixels (..., 2) of the original frame as pixels of the model's frame."""
    origin = np.array(crop[:2] if crop else (0, 0), np.float64)
    return box.to_square(np.asarray(points, np.float64) - origin)


def _original_pixels(crop: Crop | None, box: Letterbox) -> tuple[FloatImage, Mask]:
    grid = pixel_grid(box.size, box.size)
    picture = box.to_picture(grid)
    extent = np.array([box.width, box.height])
    inside = np.asarray(((picture >= -0.5) & (picture <= extent - 0.5)).all(-1))
    origin = np.array(crop[:2] if crop else (0, 0), np.float64)
    return (picture + origin).astype(np.float32), inside


def _read(field: FloatImage, at: FloatImage) -> FloatImage:
    return read_at(field, at, border=cv2.BORDER_REPLICATE)
