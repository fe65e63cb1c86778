"""Pictures of an evaluation: a strip per clip or pair, and all of them on one page.

The first column is the source; the others are a few driven frames, from the top: the driving frame,
the prediction, the truth if another subject drives, the absolute difference (times three), and the
deformation as arrows on its magnitude. True points are drawn as +, found ones as o. A second block
shows the same source driven by another subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.support.atomic_files import atomic_write_bytes
from .landmarks import Points
from .loop import Driven, Picture
from .metrics import deformation_flow, to_levels

Tile = tuple[str, Picture]
"""A caption and (TILE, TILE, 3)."""

TILE = 192
_GAP, _CAPTION = 4, 20
_GAIN = 3  # of the difference
_ARROWS = 12  # a side
_PAPER = (250, 250, 250)
_INK = (20, 20, 20)
_MARK = (0, 140, 220)
_TRUE = (90, 230, 90)
_TRACKED = (255, 170, 40)
_ARM = 5


class Sketch(NamedTuple):
    """What is drawn of a clip or pair.

    Attributes:
        own: a few driven frames.
        start: points of the source (P, 2), in pixels.
        other_title, other: of a second block.
    """

    source: Picture
    own: Sequence[Driven]
    start: Points | None = None
    other_title: str = ""
    other: Sequence[Driven] = ()


def pictures(title: str, sketch: Sketch, geometry: str) -> tuple[Picture, Picture]:
    """The strip of a clip or pair, and its line of the overview, (H, W, 3) RGB.

    Args:
        geometry: of the deformations.
    """
    source, own, start, other_title, other = sketch
    still = ("source" if start is None else "source, points +", _marked(source, start))
    blocks = [_block(title, still, own, geometry)]
    # Where the first frame is the reference, nothing moves in it.
    first = len(own) // 2 if own[0].step.after == 0 else 0
    tiles = [tile for i in sorted({first, len(own) - 1}) for tile in _tiles(own[i])]
    if other:
        blocks.append(_block(other_title, still, other, geometry))
        tiles += _tiles(other[len(other) // 2], "other subject")
    return _stacked(blocks), in_columns(title, [[tile] for tile in (still, *tiles)])


def write_strip(path: Path, picture: Picture) -> None:
    """Write a PNG, whole. OutputError when it cannot be written."""
    data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    atomic_write_bytes(path, data.tobytes())


def strip_name(number: int, clip: str) -> str:
    """A plain and unique file name for the strip of clip `number`."""
    name = clip.rstrip("/").rpartition("/")[2]
    return f"{number:03d}_{''.join(c if c.isalnum() or c in '._-' else '_' for c in name)}.png"


def overview(rows: Sequence[Picture]) -> Picture:
    """All clips' rows on one page, in two columns and at two thirds of their size."""
    small = []
    for row in rows:
        height, width = row.shape[:2]
        size = (round(width / 1.5), round(height / 1.5))
        small.append(cv2.resize(row, size, interpolation=cv2.INTER_AREA))
    half = (len(small) + 1) // 2
    columns = [_stacked(part) for part in (small[:half], small[half:]) if part]
    height = max(column.shape[0] for column in columns)
    padded = [_on_paper(c, height - c.shape[0], 0, 4 * _GAP) for c in columns]
    return np.concatenate(padded, axis=1)


def show_deformation(deformation: NDArray[np.float32], geometry: str) -> Picture:
    """Arrows to where a deformation (h, w, 2) reads in the source, on its magnitude.

    Returns:
        (TILE, TILE, 3) RGB; full brightness is a tenth of the picture's width.
    """
    pixels = deformation_flow(deformation, TILE, TILE, geometry)
    level = np.clip(np.linalg.norm(pixels, axis=-1) / (TILE / 10), 0, 1)
    picture = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    step = TILE // _ARROWS
    for y in range(step // 2, TILE, step):
        for x in range(step // 2, TILE, step):
            end = (round(x + float(pixels[y, x, 0])), round(y + float(pixels[y, x, 1])))
            cv2.arrowedLine(picture, (x, y), end, (255, 255, 255), 1, cv2.LINE_AA, tipLength=0.3)
    return picture


def _tiles(driven: Driven, driver: str = "driving") -> list[Tile]:
    """The driving frame and the prediction, with points; the truth if it is another frame."""
    step, truth = driven.step, driven.step.truth
    on_driving = (step.points, driven.found) if truth is None else (None, None)
    marks = ", + true, o found" if driven.found is not None else ""
    caption = f"{driver} {step.number}" + marks * (truth is None)
    tiles = [(caption, _marked(step.driving, *on_driving))]
    if truth is None or driven.found is None:
        return [*tiles, ("prediction", as_tile(driven.prediction))]
    found = _marked(driven.prediction, step.points, driven.found)
    return [*tiles, (f"prediction{marks}", found), ("truth", _marked(truth, step.points))]


def _block(title: str, still: Tile, frames: Sequence[Driven], geometry: str) -> Picture:
    columns = [[still]]
    for driven in frames:
        column = _tiles(driven)
        if driven.step.truth is not None:
            column.append(_difference(driven.step.truth, driven.prediction))
        column.append(("taken from (arrows)", show_deformation(driven.deformation, geometry)))
        columns.append(column)
    return in_columns(title, columns)


def in_columns(title: str, columns: Sequence[Sequence[Tile]]) -> Picture:
    """Columns of tiles under a title; short columns end in blank tiles."""
    height = max(len(column) for column in columns)
    drawn = []
    for column in columns:
        tiles = [_captioned(tile, caption) for caption, tile in column]
        tiles += [np.full_like(tiles[0], 250)] * (height - len(tiles))
        drawn.append(np.concatenate(tiles))
    body = np.concatenate(drawn, axis=1)
    return np.concatenate([_text_line(title, body.shape[1], _INK), body])


def _difference(a: Picture, b: Picture) -> Tile:
    gap = cv2.absdiff(to_levels(a), to_levels(b))
    return f"difference x{_GAIN}", as_tile(cv2.multiply(gap, np.full_like(gap, _GAIN)))


def _marked(image: Picture, true: Points | None, tracked: Points | None = None) -> Picture:
    """A tile with true points as + and tracked ones as o."""
    picture = as_tile(image)
    for x, y in _places(true, image):
        cv2.line(picture, (x - _ARM, y), (x + _ARM, y), _TRUE, 1)
        cv2.line(picture, (x, y - _ARM), (x, y + _ARM), _TRUE, 1)
    for x, y in _places(tracked, image):
        cv2.circle(picture, (x, y), _ARM, _TRACKED, 1, cv2.LINE_AA)
    return picture


def _places(points: Points | None, image: Picture) -> Sequence[tuple[int, int]]:
    """Pixels of the image as whole pixels of a tile, without those unknown or far outside."""
    if points is None:
        return []
    size = np.array([image.shape[1], image.shape[0]])
    places = (points + 0.5) * TILE / size - 0.5
    near = np.isfinite(places).all(axis=1) & (np.abs(np.nan_to_num(places)) < 4 * TILE).all(axis=1)
    return [(round(float(x)), round(float(y))) for x, y in places[near]]


def as_tile(image: Picture) -> Picture:
    """An image as (TILE, TILE, 3)."""
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image
    return cv2.resize(colour, (TILE, TILE), interpolation=cv2.INTER_AREA)


def _captioned(tile: Picture, caption: str) -> Picture:
    framed = _on_paper(tile, _GAP, _GAP, _GAP)
    return np.concatenate([_text_line(caption, framed.shape[1], _MARK), framed])


def _text_line(text: str, width: int, colour: tuple[int, int, int]) -> Picture:
    line = np.full((_CAPTION, width, 3), _PAPER, np.uint8)
    at = (_GAP, _CAPTION - 6)
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font knows no other letters
    cv2.putText(line, plain, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return line


def _stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures below each other, as wide as the widest."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_on_paper(p, _GAP, 0, width - p.shape[1]) for p in pictures])


def _on_paper(picture: Picture, below: int, left: int, right: int) -> Picture:
    border = cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(picture, 0, below, left, right, border, value=_PAPER)
