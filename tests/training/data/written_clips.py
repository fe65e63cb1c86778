"""Clips and tables, written as a data set has them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from sonomime.runtime.media.sinks import open_sink

W, H = 40, 32


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


def write_clips(folder: Path, *rows: str) -> Path:
    return _write(folder / "clips.csv", "clip,subject,group,split,crop", rows)


def write_keypoints(folder: Path, *rows: str) -> Path:
    return _write(folder / "keypoints.csv", "video,frame,keypoint,x,y,visible", rows)


def _write(path: Path, header: str, rows: Sequence[str]) -> Path:
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path
