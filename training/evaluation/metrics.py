"""Measures of a synthesized clip: functions and accumulators on arrays.

x is the real driving frame, y the synthesized one, S the source, held still, G_s a Gaussian blur of
s pixels, M the pixels where the mean of the clip exceeds 0.03. Sums run over frames and M.

- L1 ratio:         sum |y - x| / sum |S - x|
- low-pass ratio:   the same after G_4
- sharpness:        std(y - G_2 y) / std(x - G_2 x)
- motion agreement: 1 - sum |F(y->S) - F(x->S)| / sum |F(x->S)|, F the dense flow, over pixels
  where F(x->S) is forward-backward consistent, in clips that move (mean |F(x->S)| > 2 px); with DIS
  and with Farneback's flow
- temporal:         ratio of the standard deviations of G_3 of frame differences, y's to x's, and
  their correlation
- leakage:          see `leakage_ncc`

Source: docs/method.md, "How it is judged". Images are uint8 in 0..255 or float in [0, 1],
(H, W) grey or (H, W, 3) RGB, measured on their luma; flow is (H, W, 2) in pixels, xy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8] | NDArray[np.float32]
FloatImage = NDArray[np.float32]
Mask = NDArray[np.bool_]

MASK_LEVEL = 0.03
LOW_PASS_SIGMA = 4.0
HIGH_PASS_SIGMA = 2.0
TEMPORAL_SIGMA = 3.0
MOVING_PIXELS = 2.0
"""Motion agreement is defined for clips whose mean flow is above this, in pixels."""
FLOW_PRESET = "medium"
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2)
"""Scale and number of the pyramid's levels, window, iterations, neighbourhood and its sigma."""
CONSISTENCY_PIXELS = 1.0
CONSISTENCY_SHARE = 0.05
"""Forward and backward flow must cancel to within CONSISTENCY_PIXELS + CONSISTENCY_SHARE * |F|."""
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
    grey = to_float(image)
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)


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
    return total > MASK_LEVEL * len(frames)


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
    return cv2.magnitude(flow[..., 0], flow[..., 1])


def read_at(image: FloatImage, at: FloatImage, border: int = cv2.BORDER_CONSTANT) -> FloatImage:
    """A float image (H, W[, C]) read at pixels (h, w, 2), xy: bilinear, zero beyond its border."""
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border), np.float32)


def warp_by_flow(source: Image, flow: FloatImage) -> Image:
    """source(p + flow(p)): bilinear, zero padding."""
    at = pixel_grid(*flow.shape[:2]) + flow
    return cv2.remap(source, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def consistent_pixels(forward: FloatImage, backward: FloatImage) -> Mask:
    """Where following `forward` and then `backward` leads home, (H, W)."""
    at = pixel_grid(*forward.shape[:2]) + forward
    height, width = forward.shape[:2]
    inside = (at >= 0).all(-1) & (at[..., 0] <= width - 1) & (at[..., 1] <= height - 1)
    back = cv2.remap(backward, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gap = length(forward + back)
    allowed = CONSISTENCY_PIXELS + CONSISTENCY_SHARE * length(forward)
    return inside & (gap < allowed)


def deformation_flow(deformation: FloatImage, height: int, width: int, geometry: str) -> FloatImage:
    """A deformation as a flow F(x->S) in pixels, (height, width, 2).

    Args:
        deformation: (h, w, 2), xy in [-1, 1]: where each output pixel reads in the source; resized
            bilinearly.
        geometry: "half_pixel" (the displacement is resized) or "fomm" (the coordinates are).
    """
    deformation = np.asarray(deformation, np.float32)
    size = np.array([width, height], np.float32)
    if geometry == "fomm":
        points = cv2.resize(deformation, (width, height), interpolation=cv2.INTER_LINEAR)
        return ((points + 1) * size - 1) / 2 - pixel_grid(height, width)
    h, w = deformation.shape[:2]
    small = np.array([w, h], np.float32)
    displacement = deformation - ((2 * pixel_grid(h, w) + 1) / small - 1)
    displacement = cv2.resize(displacement, (width, height), interpolation=cv2.INTER_LINEAR)
    return displacement * (size / 2)


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


class Leakage(NamedTuple):
    """Whose speckle a frame shows when another subject drives: NCC of high-passed images.

    Attributes:
        source: of y with the warped source: should be high.
        driving: of y with the driving frame: should be near the floor; a copy has 1.
        floor: of the warped source with the driving frame: sector edges and marks may coincide.
    """

    source: float
    driving: float
    floor: float


def leakage_ncc(
    y: Image, warped_source: Image, driving: Image, source_mask: Mask, driving_mask: Mask
) -> Leakage:
    """The leakage of one frame; NCC with the source over its own M, else over both clips' M."""
    high_y, high_s, high_d = (high_pass(to_float(i)) for i in (y, warped_source, driving))
    both = source_mask & driving_mask
    return Leakage(
        source=ncc(high_y, high_s, source_mask),
        driving=ncc(high_y, high_d, both),
        floor=ncc(high_s, high_d, both),
    )


class Spread:
    """Running standard deviations of two signals and their correlation."""

    def __init__(self) -> None:
        self._n = 0
        self._sums = np.zeros(5, np.float64)  # a, b, a a, b b, a b

    def add(self, a: FloatImage, b: FloatImage) -> None:
        """Add samples of both signals, (N,) each."""
        a64, b64 = a.astype(np.float64), b.astype(np.float64)
        self._n += a64.size
        self._sums += (a64.sum(), b64.sum(), _dot(a64, a64), _dot(b64, b64), _dot(a64, b64))

    def ratio(self) -> float:
        """std(a) / std(b); nan where b never varies."""
        var_a, var_b, _ = self._moments()
        return math.sqrt(var_a / var_b) if var_b > _NOTHING else math.nan

    def correlation(self) -> float:
        """Pearson's correlation; 0 where a never varies, nan where b never does."""
        var_a, var_b, cov = self._moments()
        if var_b <= _NOTHING:
            return math.nan
        return cov / math.sqrt(var_a * var_b) if var_a > _NOTHING else 0.0

    def _moments(self) -> tuple[float, float, float]:
        if self._n == 0:
            return math.nan, 0.0, math.nan
        a, b, aa, bb, ab = (self._sums / self._n).tolist()
        return max(aa - a * a, 0.0), max(bb - b * b, 0.0), ab - a * b


def masked_sum(image: FloatImage, mask: Mask) -> float:
    """sum |image| over the mask."""
    return float(np.abs(image)[mask].sum(dtype=np.float64))


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # Not BLAS: its threads spin for longer than these sums take.
    return float(np.einsum("i,i->", a, b))


class FlowError:
    """How far flows are from the true ones, over frames and their known pixels."""

    def __init__(self) -> None:
        self._error, self._motion, self._pixels = 0.0, 0.0, 0

    def add(self, flow: FloatImage, true: FloatImage, known: Mask) -> None:
        """Add a frame's flow and the true one (H, W, 2)."""
        self._error += masked_sum(length(flow - true), known)
        self._motion += masked_sum(length(true), known)
        self._pixels += int(known.sum())

    @property
    def mean(self) -> float:
        """Mean |flow - true| in pixels."""
        return ratio(self._error, self._pixels)

    @property
    def mean_motion(self) -> float:
        """Mean |true| in pixels."""
        return ratio(self._motion, self._pixels)

    def agreement(self) -> float:
        """Motion agreement; nan where little moves."""
        return 1 - self._error / self._motion if self.mean_motion > MOVING_PIXELS else math.nan


def ratio(top: float, bottom: float) -> float:
    """top / bottom, nan where there is nothing to divide by."""
    return top / bottom if bottom > _NOTHING else math.nan


def finite_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The mean of those that are finite; nan where none is."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else math.nan
