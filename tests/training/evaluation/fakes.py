"""Synthetic speckle clips and predictors whose faults are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sonomime.runtime.media.frames import Letterbox
from sonomime.training.data.dataset import Clip, ClipFrames
from sonomime.training.evaluation.candidate import Candidate
from sonomime.training.evaluation.metrics import pixel_grid

Image = NDArray[np.uint8]


def speckle(size: int = 96, seed: int = 0) -> Image:
    """A speckled picture, uint8 (size, size), bright enough to lie in M everywhere."""
    noise = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    fine = cv2.GaussianBlur(noise, (0, 0), 1.2)
    coarse = cv2.GaussianBlur(noise, (0, 0), 8)
    picture = 110 + 40 * fine / fine.std() + 15 * coarse / coarse.std()
    return np.clip(picture, 20, 255).astype(np.uint8)


def shifted(image: Image, x: float, y: float) -> Image:
    """The picture moved by (x, y) pixels, borders repeated."""
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    size = image.shape[::-1]
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(image, matrix, size, borderMode=border), np.uint8)


def moving_clip(
    count: int = 9, size: int = 96, step: float = 2.0, seed: int = 0
) -> NDArray[np.uint8]:
    """Speckle that wanders to the right by `step` pixels a frame, cut from a larger picture."""
    large = speckle(2 * size, seed)
    first = size // 2
    frames = []
    for t in range(count):
        moved = shifted(large, step * (t - count // 2), 0)
        frames.append(moved[first : first + size, first : first + size])
    return np.stack(frames)


def clip_of(
    name: str = "clips/a.mp4", subject: str = "a", group: str = "lung", **kwargs: Any
) -> ClipFrames:
    """A clip without labels, of `frames` or of `moving_clip(**kwargs)`."""
    frames = kwargs.pop("frames", None)
    frames = moving_clip(**kwargs) if frames is None else frames
    count, size = frames.shape[:2]
    clip = Clip(name, Path(name), subject, group, "test")
    points, visible = np.zeros((count, 0, 2), np.float32), np.zeros((count, 0), np.bool_)
    box = Letterbox.fit(size, size, size)
    return ClipFrames(clip, frames, np.arange(count), points, visible, (), box)


class Fake:
    """A predictor that holds the source; the others derive from it. Deformation: identity."""

    def __init__(self) -> None:
        self.source: Image = np.zeros((8, 8), np.uint8)
        self.reference: Image | None = None

    def set_source(self, image: Image) -> None:
        self.source = image

    def set_reference(self, frame: Image) -> None:
        self.reference = frame

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        return self.source

    def read(self, name: str) -> NDArray[np.float32]:
        assert name == "deformation"
        return ((2 * pixel_grid(16, 16) + 1) / 16 - 1)[None]


class Copy(Fake):
    """Gives the driving frame back: perfect where the target drives, a leak where another does."""

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        return frame


class Ghost(Fake):
    """The source with a third of the driving frame in it."""

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        return np.asarray(cv2.addWeighted(self.source, 0.67, frame, 0.33, 0), np.uint8)


def candidate_of(predictor: Any, size: int = 96, channels: int = 1) -> Candidate:
    """The predictor as a Candidate, for absolute and for relative motion."""
    return Candidate(predictor, predictor, size, channels, "half_pixel", {"kind": "fake"})
