"""Optical flow measured on a real pair: the target that supervises the deformation at first.

Convention: a deformation says where to READ in the source for each driving pixel; half_pixel
points.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .models.geometry import pixels_to_points

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]


def measured_flow(source: FloatArray, driving: FloatArray) -> tuple[FloatArray, Mask]:
    """Dense optical flow (DIS, Kroeger et al. 2016) from driving to source, at a quarter of the
    size.

    Args:
        source, driving: float32 (S, S) or (S, S, 3) in [0, 1].

    Returns:
        flow: float32 (S/4, S/4, 2), points to read in the source.
        valid: bool (S/4, S/4), where flow f and backward flow b agree, |f + b|^2 <=
            0.01 (|f|^2 + |b|^2) + 0.5 in pixels of the half-size image (Sundaram et al. 2010), and
            where there is something to see.
    """
    half, quarter = source.shape[0] // 2, source.shape[0] // 4
    before, after = (_levels(image, half) for image in (driving, source))
    # A new one each time: the object keeps buffers, and may be called from several threads.
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
    """Where an image (S, S[, 3]) is not black all around, at size x size; black shows no motion."""
    small = cv2.resize(_grey(image), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.blur(small, (5, 5)) > 0.01)


def _grey(image: FloatArray) -> FloatArray:
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)


def _levels(image: FloatArray, size: int) -> NDArray[np.uint8]:
    small = cv2.resize(_grey(image), (size, size), interpolation=cv2.INTER_AREA)
    return np.round(small * 255).astype(np.uint8)
