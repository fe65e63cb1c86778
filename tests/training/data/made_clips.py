"""Clips made of known pictures, and settings under which pairs of them are easy to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sonomime.runtime.media.frames import Letterbox
from sonomime.training.config import DataConfig
from sonomime.training.coordinates import pixels_to_points
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.clip_frames import ClipFrames
from sonomime.training.data.dataset import Clip
from sonomime.training.data.pairs import PairSampler

SIZE = 64
PLAIN = DataConfig(augment=False, synthetic=0.0, flow="none", near_steps=0)
MOVED = replace(PLAIN, augment=True, gain=(1, 1), gamma=(1, 1))


def make_clip(
    frames: np.ndarray,
    name: str = "a",
    group: str = "g",
    points: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    subject: str = "",
) -> ClipFrames:
    count, size = frames.shape[:2]
    points = np.zeros((count, 0, 2)) if points is None else points
    visible = np.ones(points.shape[:2], np.bool_) if visible is None else visible
    return ClipFrames(
        Clip(name, Path(name), subject or name, group, "train"),
        frames.astype(np.uint8),
        np.arange(count),
        points.astype(np.float32),
        visible,
        tuple(f"k{i}" for i in range(points.shape[1])),
        Letterbox.fit(size, size, size),
    )


def flat(levels: Sequence[int], **kwargs: Any) -> ClipFrames:
    """A clip whose frames say which they are: each is of one grey level."""
    return make_clip(np.ones((1, SIZE, SIZE)) * np.array(levels)[:, None, None], **kwargs)


def smooth(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Smooth random images, so that interpolation costs next to nothing."""
    rng = np.random.default_rng(seed)
    at = np.linspace(0, 2 * np.pi, size)
    images = np.zeros((count, size, size))
    for image in images:
        for _ in range(6):
            kx, ky = rng.integers(1, 4, 2)
            a, b = rng.uniform(0, 2 * np.pi, 2)
            image += np.outer(np.sin(ky * at + a), np.sin(kx * at + b))
    return np.round(128 + 20 * images).clip(40, 220)


def point_grid(side: int) -> np.ndarray:
    """The centres of the pixels of a square as points, (side, side, 2)."""
    line = pixels_to_points(np.arange(side, dtype=np.float64), side)
    return np.stack(np.meshgrid(line, line), axis=-1)


def blob(size: tuple[int, int], at: Sequence[float], spread: float) -> np.ndarray:
    """A picture of (width, height) with a bright spot at (x, y) pixels."""
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    bump = np.exp(-((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / (2 * spread**2))
    return np.round(255 * bump).astype(np.uint8)


def centre(image: np.ndarray) -> np.ndarray:
    """The centre of what is bright, (x, y) in pixels."""
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    weights = image / image.sum()
    return np.array([(weights * columns).sum(), (weights * rows).sum()])


def draw(
    clips: ClipFrames | Sequence[ClipFrames],
    data: DataConfig,
    count: int,
    step: int = 0,
    seed: int = 0,
) -> PairBatch:
    """The batch of a step, of `count` pairs, by a new sampler."""
    clips = [clips] if isinstance(clips, ClipFrames) else clips
    return PairSampler(clips, data, seed, batch_size=count).batch(step)


def assert_same(one: PairBatch, other: PairBatch) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
