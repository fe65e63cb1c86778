"""Measures of a synthesized clip: functions on arrays.

x is the real driving frame, y the synthesized one, S the source, G_s a Gaussian blur of s pixels, M
the pixels that count. The measures that are made of these: docs/method.md, "How it is judged".
Images are uint8 in 0..255 or float in [0, 1], (H, W) grey or (H, W, 3) RGB, measured on their luma;
flow is (H, W, 2) in pixels, xy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ..coordinates import points_to_pixels

Image = NDArray[np.uint8] | NDArray[np.float32]
FloatImage = NDArray[np.float32]
Mask = NDArray[np.bool_]
Sums = NDArray[np.float64]

LOW_PASS_SIGMA = 4.0
HIGH_PASS_SIGMA = 2.0
TEMPORAL_SIGMA = 3.0
MOVING_PIXELS = 2.0
"""Motion agreement is defined for clips whose mean flow is above this, in pixels."""
FLOW_PRESET = "medium"
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2)
"""Scale and number of the pyramid's levels, window, iterations, neighbourhood and its sigma."""
_NOTHING = 1e-12
_MSE_FLOOR = 1e-10  # a perfect copy counts as 100 dB, so that means over frames stay finite


def to_float(image: Image) -> FloatImage:
    """The luma of an image as float32 (H, W) in [0, 1]."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[..., 0]
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    return image.astype(np.float32, copy=False)


def to_levels(image: Image) -> NDArray[np.uint8]:
    """The luma of an image as uint8 (H, W)."""
    if image.ndim == 2 and image.dtype == np.uint8:
        return image
    return np.clip(np.rint(to_float(image) * 255), 0, 255).astype(np.uint8)


def blur(image: FloatImage, sigma: float) -> FloatImage:
    """G_sigma: a Gaussian blur of `sigma` pixels of a float (H, W) image, borders reflected."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def high_pass(image: FloatImage) -> FloatImage:
    """image - G_2 image: the speckle, without slow brightness."""
    return image - blur(image, HIGH_PASS_SIGMA)


def clip_mask(frames: NDArray[np.uint8]) -> Mask:
    """M: the pixels (H, W) whose mean over the clip (T, H, W[, 3]) exceeds 0.03 of full scale."""
    total = np.zeros(frames.shape[1:3], np.float64)
    for frame in frames:
        total += to_float(frame)
    return total > 0.03 * len(frames)


def dis(here: Image, there: Image) -> FloatImage:
    """Dense flow F(here -> there) (H, W, 2) by OpenCV's DIS: here(p) is there(p + F(p))."""
    # A new object each time: it has buffers, and two threads may call.
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(finder.calc(to_levels(here), to_levels(there), None), np.float32)


def farneback(here: Image, there: Image) -> FloatImage:
    """F(here -> there) by polynomial expansion (Farneback 2003), as `dis` gives it."""
    flow = cv2.calcOpticalFlowFarneback(to_levels(here), to_levels(there), None, *FARNEBACK, 0)
    return np.asarray(flow, np.float32)


@lru_cache(maxsize=8)
def pixel_grid(height: int, width: int) -> FloatImage:
    """The pixel coordinates (height, width, 2) of a picture, xy; read-only."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grid = np.stack([x, y], -1)
    grid.flags.writeable = False
    return grid


def length(flow: FloatImage) -> FloatImage:
    """|F|: the lengths (H, W) of a flow (H, W, 2)."""
    # Not cv2.magnitude, whose last bit depends on where in memory the flow lies.
    x, y = flow[..., 0], flow[..., 1]
    return np.sqrt(x * x + y * y)


def read_at(image: Image, at: FloatImage, border: int = cv2.BORDER_CONSTANT) -> Image:
    """An image (H, W[, C]) read at pixels (h, w, 2), xy: bilinear, zero beyond its border."""
    return cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=border)


def warp_by_flow(source: Image, flow: FloatImage) -> Image:
    """source(p + flow(p)): bilinear, zero padding."""
    return read_at(source, pixel_grid(*flow.shape[:2]) + flow)


def consistent_pixels(forward: FloatImage, backward: FloatImage) -> Mask:
    """Where `forward` and then `backward` lead home, (H, W): to within 1 pixel + 5 % of |F|."""
    height, width = forward.shape[:2]
    at = pixel_grid(height, width) + forward
    inside = ((at >= 0) & (at <= (width - 1, height - 1))).all(-1)
    gap = length(forward + read_at(backward, at, cv2.BORDER_REPLICATE))
    return inside & (gap < 1 + 0.05 * length(forward))


def deformation_flow(deformation: FloatImage, height: int, width: int, geometry: str) -> FloatImage:
    """A deformation as a flow F(x->S) in pixels, (height, width, 2).

    The flow is that of sampling at the deformation's own size, where FOMM's generator warps its
    feature, resized bilinearly.

    Args:
        deformation: (h, w, 2), xy in [-1, 1]: where each output pixel reads in the source.
        geometry: "half_pixel", "fomm_aligned" or "fomm_unaligned" (training/models/geometry.py).
    """
    h, w = deformation.shape[:2]
    own, size = (np.array(sides, np.float32) for sides in ((w, h), (width, height)))
    # What sampling takes -1 and +1 for does not follow from what the points mean.
    sampled = "fomm_aligned" if geometry == "fomm_aligned" else "half_pixel"
    flow = points_to_pixels(deformation, own, sampled) - pixel_grid(h, w)
    return cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * (size / own)


def psnr(y: Image, x: Image) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1, at most 100."""
    mse = float(np.mean(np.square(to_float(y) - to_float(x), dtype=np.float64)))
    return -10 * math.log10(max(mse, _MSE_FLOOR))


def ssim(y: Image, x: Image) -> float:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian of 1.5 px, K = .01, .03, L = 1."""
    a, b = to_float(y), to_float(x)

    def mean(image: FloatImage) -> FloatImage:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    mean_a, mean_b = mean(a), mean(b)
    var_a = mean(a * a) - mean_a * mean_a
    var_b = mean(b * b) - mean_b * mean_b
    cov = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return float(np.mean(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))


def ncc(a: FloatImage, b: FloatImage, mask: Mask) -> float:
    """Normalised cross-correlation (Pearson) of two images over a mask; 0 where one is flat."""
    va, vb = a[mask].astype(np.float64), b[mask].astype(np.float64)
    if va.size < 2:
        return math.nan
    va -= va.mean()
    vb -= vb.mean()
    scale = math.sqrt(_dot(va, va) * _dot(vb, vb))
    return _dot(va, vb) / scale if scale > _NOTHING else 0.0


def moments(a: FloatImage, b: FloatImage) -> Sums:
    """Count and sums of two signals (N,): N, a, b, a a, b b, a b; add those of several frames."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    products = _dot(a64, a64), _dot(b64, b64), _dot(a64, b64)
    return np.array([a64.size, a64.sum(), b64.sum(), *products])


def spread_ratio(sums: Sums) -> tuple[float, float]:
    """Of `moments`: std(a) / std(b), and Pearson's correlation.

    Both are nan where b never varies; where a never does, the correlation is 0.
    """
    if not sums[0]:
        return math.nan, math.nan
    a, b, aa, bb, ab = (sums[1:] / sums[0]).tolist()
    var_a, var_b, cov = max(aa - a * a, 0.0), max(bb - b * b, 0.0), ab - a * b
    if var_b <= _NOTHING:
        return math.nan, math.nan
    return math.sqrt(var_a / var_b), cov / math.sqrt(var_a * var_b) if var_a > _NOTHING else 0.0


def masked_sum(image: FloatImage, mask: Mask) -> float:
    """sum |image| over the mask."""
    return float(np.abs(image)[mask].sum(dtype=np.float64))


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # Not BLAS: its threads spin for longer than these sums take.
    return float(np.einsum("i,i->", a, b))


def flow_sums(flow: FloatImage, true: FloatImage, known: Mask) -> Sums:
    """sum |flow - true|, sum |true| and the number of the known pixels; add those of frames."""
    return np.array(
        [masked_sum(length(flow - true), known), masked_sum(length(true), known), known.sum()]
    )


def agreement(sums: Sums) -> float:
    """Motion agreement of `flow_sums`; nan where little moves."""
    error, motion, pixels = sums.tolist()
    return 1 - error / motion if ratio(motion, pixels) > MOVING_PIXELS else math.nan


def ratio(top: float, bottom: float) -> float:
    """top / bottom, nan where there is nothing to divide by."""
    return top / bottom if bottom > _NOTHING else math.nan


def finite_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The mean of those that are finite; nan where none is."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else math.nan
