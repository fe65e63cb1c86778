"""Small clips: made of known pictures for pairs, or written with their tables as a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.support.errors import InputError
from sonomime.training.config import DataConfig
from sonomime.training.coordinates import pixels_to_points
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.clip_frames import ClipFrames
from sonomime.training.data.dataset import Clip
from sonomime.training.data.pairs import PairSampler

# -- written ---------------------------------------------------------------------------------------

W, H = 40, 32
A, B = "clips/a.mkv,s1,lung,train,", 'clips/b,s2,muscle,test,"4,2,30,28"'  # of the fixture dataset


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, H, W), dtype=np.uint8)


def write_video(path: Path, images: Sequence[np.ndarray]) -> Path:
    """An exact video of grey images: FFV1 in Matroska."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_sink(path, images[0].shape[::-1], 1, Fraction(25), {}) as sink:
        for image in images:
            sink.write(image)
    return path


def write_folder(path: Path, images: Sequence[np.ndarray], name: str = "f{}.png") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(path / name.format(i)), image)
    return path


def write_table(path: Path, *rows: str) -> Path:
    """clips.csv or keypoints.csv."""
    of_clips = path.name == "clips.csv"
    header = "clip,subject,group,split,crop" if of_clips else "video,frame,keypoint,x,y,visible"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def refused(use: Callable[[], object], *named: str) -> None:
    """What is wrong with the user's files is said, with a hint, in these words."""
    with pytest.raises(InputError) as caught:
        use()
    said = f"{caught.value.message}\n{caught.value.hint}"
    assert caught.value.hint and [word for word in named if word not in said] == []


# -- made ------------------------------------------------------------------------------------------

SIZE = 64
#: Settings under which frames are easy to tell apart.
PLAIN = DataConfig(augment=False, synthetic=0.0, flow="none")
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
    clip, box = Clip(name, Path(name), subject or name, group, "train"), Letterbox.fit(1, 1, size)
    images, points = frames.astype(np.uint8), points.astype(np.float32)
    return ClipFrames(clip, images, np.arange(count), points, visible, visible & False, box)


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
