"""Pieces of the phantom's pictures: tiles of frames, landmarks, displacement, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.support.atomic_files import atomic_write_bytes
from ...training.evaluation.metrics import length

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]

_LARGEST = 240_000  # bytes
_RING = 4  # pixels
_COLOURS = ((255, 190, 0), (0, 220, 255), (120, 255, 120))
_ARROWS = 16  # pixels apart
_LINES = ((20, 20, 20), (200, 60, 20), (20, 110, 200), (40, 150, 60), (150, 60, 170), (190, 140, 0))


def grey_tile(image: Picture, side: int) -> Picture:
    """A grey frame as (side, side, 3)."""
    way = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_LINEAR
    grey = cv2.resize(image, (side, side), interpolation=way)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))


def ringed(tile: Picture, points: Points, frame: int) -> Picture:
    """A tile with a small ring about each landmark; points (P, 2) are pixels of a frame of that
    side."""
    tile, scale = tile.copy(), tile.shape[0] / frame
    for place, colour in zip(points, _COLOURS, strict=False):
        cv2.circle(tile, _sixteenths(place, scale), 16 * _RING, colour, 1, cv2.LINE_AA, 4)
    return tile


def arrows(image: Picture, displacement: Points, sector: NDArray[np.bool_], side: int) -> Picture:
    """From where tissue was in the first frame to where it is now, on the darkened frame.

    Args:
        displacement: (H, W, 2) pixels, from this frame to the first.
    """
    tile, scale = grey_tile(image // 3, side), side / image.shape[0]
    level = np.minimum(255 * (0.3 + 0.7 * length(displacement) / 25), 255).astype(np.uint8)
    colours = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1].tolist()
    step = round(_ARROWS / scale)
    for y in range(step // 2, image.shape[0], step):
        for x in range(step // 2, image.shape[1], step):
            if sector[y, x]:
                here = np.array([x, y])
                end = _sixteenths(here, scale)
                was = _sixteenths(here + displacement[y, x], scale)
                cv2.line(tile, was, end, colours[y][x], 1, cv2.LINE_AA, 4)
                cv2.circle(tile, end, 20, colours[y][x], -1, cv2.LINE_AA, 4)
    return tile


def _sixteenths(place: NDArray[np.floating], scale: float) -> tuple[int, int]:
    """A pixel of a frame in sixteenths of a tile's, which is how OpenCV draws between pixels."""
    x, y = (round(16 * float(v)) for v in (place + 0.5) * scale - 0.5)
    return x, y


def plot(
    title: str, x: Sequence[float], curves: Sequence[tuple[str, Sequence[float]]], top: float
) -> Picture:
    """Curves over x from 0 to their last, (270, 440, 3); nan ends a curve."""
    height, width, left, under = 270, 440, 40, 40
    picture = np.full((height, width, 3), 250, np.uint8)
    inner = width - left - 10, height - under - 26

    def at(a: float, b: float) -> tuple[int, int]:
        part = a / x[-1], min(b / top, 1.05)
        return round(left + part[0] * inner[0]), round(26 + (1 - part[1]) * inner[1])

    def write(text: str, place: tuple[int, int], colour: tuple[int, int, int] = _LINES[0]) -> None:
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)

    write(title, (left, 14))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x0, y0), (x1, _) = at(0, share * top), at(x[-1], 0)
        cv2.line(picture, (x0, y0), (x1, y0), (220, 220, 220), 1)
        write(f"{share * top:.3g}", (4, y0 + 4))
        write(f"{share * x[-1]:.2g}", (at(share * x[-1], 0)[0] - 8, height - 24))
    for number, (name, values) in enumerate(curves):
        colour = _LINES[number % len(_LINES)]
        points = [at(a, b) for a, b in zip(x, values, strict=True) if np.isfinite(b)]
        cv2.polylines(picture, [np.array(points, np.int32)], False, colour, 2, cv2.LINE_AA)
        write(name, (left + 80 * number, height - 6), colour)
    return picture


def write_jpeg(path: Path, picture: Picture) -> None:
    """Write a JPEG of less than 240 kB, as good as that allows."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    for quality in range(92, 30, -4):
        ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok and len(data) < _LARGEST:
            break
    atomic_write_bytes(path, data.tobytes())
