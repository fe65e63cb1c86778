"""Flow of a pair, measured or exact: the target that supervises the deformation at first.

Convention: for each driving pixel, where to READ in the source; half_pixel points.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..coordinates import pixels_to_points, points_to_pixels
from .transforms import PlaneMap

#: Greatest error of a point of the exact flow: 0.02 pixels of 256, in points.
EXACT_WITHIN = 0.02 * 2 / 256

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]
Array = NDArray[Any]  # float32 or float64


def exact_flow(
    source: FloatArray, driving: FloatArray, sector: Mask, placed: PlaneMap
) -> tuple[FloatArray, Mask]:
    """The flow between two frames whose displacements to a third are known: float32 (n, n, 2),
    points, valid in the sector (n, n). Both images were read through the affine map ``placed``.

    Returns:
        flow: float32 (n, n, 2), points to read in the source image, after ``placed``.
        valid: bool (n, n), inside both sectors and the source image, found to within EXACT_WITHIN.
    """
    n = len(sector)
    cells = np.float32(n / 2)  # points to cells
    places = points_to_pixels(placed.grid(n).reshape(2, -1).T, n)
    valid = _inside(sector, places)
    x = places[valid]
    field = cells * source
    target = x + cells * sampled(driving, x)[0]
    start = target - sampled(field, x)[0]
    y, found = same_tissue(field, target, start, EXACT_WITHIN * n / 2)
    y = np.where(found[:, None], y, x)
    places[valid] = y
    inverse = np.linalg.inv(placed.matrix)
    flow = ((pixels_to_points(places, n) - placed.offset) @ inverse.T).astype(np.float32)
    valid[valid] = found & _inside(sector, y)
    valid &= (np.abs(flow) <= 1).all(axis=1)
    return flow.reshape(n, n, 2), valid.reshape(n, n)


@np.errstate(over="ignore", invalid="ignore")  # in a wild field nothing is found, without warnings
def same_tissue(
    field: Array,
    target: Array,
    start: Array,
    within: float,
    rounds: int = 12,
    longest: float = np.inf,
) -> tuple[Array, Mask]:
    """Where a frame shows given tissue: y with y + d(y) = target, by Newton's method on the
    bilinear interpolant (plain iteration diverges where tissue turns by more than 60 degrees).

    Args:
        field: d, (H, W, 2) cells, from the frame to a third one.
        target, start: (N, 2) cells: the tissue's places in the third frame, first guesses.
        within: greatest error of a place that counts as found, in cells.
        longest: longest step, in cells. Where the field folds between its cells there are several
            places, and short steps find the near one.

    Returns:
        y: (N, 2), meaningless where nothing was found. found: bool (N,).
    """
    y, far = start, np.zeros(len(start), start.dtype)
    for left in reversed(range(rounds if len(y) else 0)):
        value, by_x, by_y = sampled(field, y)
        miss = y + value - target
        far = np.abs(miss).max(axis=1)
        if left == 0 or far.max() < 0.1 * within:
            break
        (a, c), (b, d) = by_x.T, by_y.T
        right, down = miss.T
        det = (1 + a) * (1 + d) - b * c
        # A plain step where the Jacobian is singular or the field folds.
        fine = np.abs(det) > 0.05
        det[~fine] = 1
        whole = np.stack([(1 + d) * right - b * down, (1 + a) * down - c * right], axis=1)
        step = np.where(fine[:, None], whole / det[:, None], miss)
        if longest < np.inf:
            length = np.hypot(step[:, 0], step[:, 1])[:, None]
            step *= longest / np.maximum(length, longest)
        y = y - step
    return y, far < within


@np.errstate(over="ignore", invalid="ignore")
def sampled(field: Array, at: Array) -> tuple[Array, Array, Array]:
    """(H, W, C) at (N, 2) cells: the bilinear interpolant and its derivatives by x and y, (N, C);
    outside the field it is extrapolated. (cv2.remap rounds places to 1/32.)"""
    height, width = field.shape[:2]
    last = np.array((width - 2, height - 2), at.dtype)
    corner = np.fmin(np.fmax(at, 0), last).astype(np.int32)  # unlike clip, they leave no nan
    u, v = (at - corner).astype(at.dtype).T[..., None]
    flat = np.ascontiguousarray(field).reshape(height * width, -1)
    first = corner[:, 1] * width + corner[:, 0]
    a, b, c, d = (flat.take(first + k, axis=0) for k in (0, 1, width, width + 1))
    top, bottom = a + u * (b - a), c + u * (d - c)
    by_x, by_y = (b - a) + v * ((d - c) - (b - a)), bottom - top
    return top + v * by_y, by_x, by_y


def _inside(sector: Mask, at: FloatArray) -> Mask:
    """Where all the cells around ``at`` (N, 2) are in the sector."""
    n = len(sector)
    near = (np.abs(at - (n - 1) / 2) <= (n - 1) / 2 + 1e-3).all(axis=1)
    whole = sampled(sector.astype(np.float32)[..., None], at)[0][:, 0] > 0.999
    return np.asarray(near & whole)


def measured_flow(source: FloatArray, driving: FloatArray) -> tuple[FloatArray, Mask]:
    """Dense optical flow (DIS, Kroeger et al. 2016) between images (S, S) or (S, S, 3) in [0, 1].

    Returns:
        flow: float32 (S/4, S/4, 2), points to read in the source.
        valid: bool (S/4, S/4), where there is something to see and flow f agrees with backward flow
            b: |f + b|^2 <= 0.01 (|f|^2 + |b|^2) + 0.5 in pixels of half the size (Sundaram 2010).
    """
    half, quarter = source.shape[0] // 2, source.shape[0] // 4
    before, after = (
        np.round(_small_grey(image, half) * 255).astype(np.uint8) for image in (driving, source)
    )
    # A new one each time, since the object keeps buffers. Its result does not depend on OpenCV's
    # number of threads.
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((half, half, 2), np.float32)
    forward = dis.calc(before, after, start.copy())
    backward = dis.calc(after, before, start)
    rows, columns = np.mgrid[0:half, 0:half].astype(np.float32)
    at_x, at_y = columns + forward[..., 0], rows + forward[..., 1]
    back = cv2.remap(backward, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (at_x >= -0.5) & (at_x <= half - 0.5) & (at_y >= -0.5) & (at_y <= half - 0.5)
    miss = ((forward + back) ** 2).sum(axis=-1)
    length = (forward**2).sum(axis=-1) + (back**2).sum(axis=-1)
    agree = inside & (miss <= 0.01 * length + 0.5)
    motion = cv2.resize(forward, (quarter, quarter), interpolation=cv2.INTER_AREA) * (2 / half)
    line = pixels_to_points(np.arange(quarter, dtype=np.float32), quarter)
    flow = (motion + np.stack(np.meshgrid(line, line), axis=-1)).astype(np.float32)
    blocks = agree.reshape(quarter, 2, quarter, 2).all(axis=(1, 3))
    return flow, blocks & has_content(driving, quarter)


def has_content(image: FloatArray, size: int) -> Mask:
    """Where an image (S, S[, 3]) is not black, at size x size; black shows no motion."""
    return np.asarray(cv2.blur(_small_grey(image, size), (5, 5)) > 0.01)


def _small_grey(image: FloatArray, size: int) -> FloatArray:
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA), np.float32)
