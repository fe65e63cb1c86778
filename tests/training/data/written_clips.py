"""Clips and tables, written as a data set has them."""

from __future__ import annotations

import csv
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
    """An exact video: FFV1 in Matroska."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    channels = 1 if images[0].ndim == 2 else 3
    with open_sink(path, (width, height), channels, Fraction(25), {}) as sink:
        for image in images:
            sink.write(image)
    return path


def write_folder(path: Path, images: Sequence[np.ndarray], name: str = "f{}.png") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(path / name.format(i)), image)
    return path


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
