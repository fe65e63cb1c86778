"""Clips made of known pictures, and settings under which pairs of them are easy to tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sonomime.runtime.media.frames import Letterbox
from sonomime.training.config import DataConfig
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.dataset import Clip, ClipFrames

SIZE = 64
PLAIN = DataConfig(augment=False, synthetic=0.0, flow="none", near_steps=0)
MOVED = replace(PLAIN, augment=True, gain=(1, 1), gamma=(1, 1))


def make_clip(
    frames: np.ndarray,
    name: str = "a",
    group: str = "g",
    points: np.ndarray | None = None,
    visible: np.ndarray | None = None,
) -> ClipFrames:
    count = len(frames)
    if points is None:
        points = np.zeros((count, 0, 2), np.float32)
    if visible is None:
        visible = np.ones(points.shape[:2], np.bool_)
    names = tuple(f"k{i}" for i in range(points.shape[1]))
    size = frames.shape[1]
    return ClipFrames(
        Clip(name, Path(name), name, group, "train"),
        frames.astype(np.uint8),
        np.arange(count),
        points.astype(np.float32),
        visible,
        names,
        Letterbox.fit(size, size, size),
    )


def flat(levels: list[int], **kwargs: object) -> ClipFrames:
    """A clip whose frames say which they are: each is of one grey level."""
    frames = np.ones((len(levels), SIZE, SIZE)) * np.array(levels)[:, None, None]
    return make_clip(frames, **kwargs)  # type: ignore[arg-type]


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


def assert_same(one: PairBatch, other: PairBatch) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.equal(a, b)
