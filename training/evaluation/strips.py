"""Pictures of an evaluation: a strip per clip or pair, and all of them on one page.

The first column is the source; the others are a few driven frames, from the top: the driving frame,
the prediction, the truth if another subject drives, the absolute difference (times three), and the
deformation as arrows on its magnitude. True points are drawn as +, found ones as o. A second block
shows the same source driven by another subject. Frames in which points are detected have no source.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from .loop import Frame, Picture, Points
from .metrics import FloatImage, to_levels

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
    """What is drawn of a clip or pair."""

    source: Picture
    own: Sequence[Frame]  # a few
    start: Points | None = None  # of the source (P, 2), in pixels
    other_title: str = ""  # of a second block,
    other: Sequence[Frame] = ()  # and its frames


def pictures(title: str, sketch: Sketch) -> tuple[Picture, Picture]:
    """The strip of a clip or pair, and its line of the overview, (H, W, 3) RGB."""
    source, own, start, other_title, other = sketch
    caption = "source" if start is None else "source, points +"
    driven = own[0].prediction is not None
    still = [(caption, _marked(source, start))] if driven else []
    blocks = [_block(title, still, own)]
    # A pair's first frame is the reference: nothing moves in it.
    first = 0 if own[0].truth is None or own[0].found is None else len(own) // 2
    tiles = [tile for i in sorted({first, len(own) - 1}) for tile in _tiles(own[i])]
    if other:
        blocks.append(_block(other_title, still, other))
        tiles += _tiles(other[len(other) // 2], "other subject")
    return _stacked(blocks), in_columns(title, [[tile] for tile in (*still, *tiles)])


def strip_name(number: int, clip: str) -> str:
    """A plain and unique file name for the strip of clip `number`."""
    name = clip.rstrip("/").rpartition("/")[2]
    return f"{number:03d}_{''.join(c if c.isalnum() or c in '._-' else '_' for c in name)}.png"


def overview(rows: Sequence[Picture]) -> Picture:
    """All clips' rows on one page, in two columns and at two thirds of their size."""
    small = [cv2.resize(r, None, fx=2 / 3, fy=2 / 3, interpolation=cv2.INTER_AREA) for r in rows]
    half = (len(small) + 1) // 2
    columns = [_stacked(part) for part in (small[:half], small[half:]) if part]
    height = max(len(column) for column in columns)
    return np.concatenate([_on_paper(c, height - len(c), 4 * _GAP) for c in columns], axis=1)


def show_flow(flow: FloatImage) -> Picture:
    """Arrows to where a flow (H, W, 2), in pixels, reads in the source, on its magnitude.

    Returns:
        (TILE, TILE, 3) RGB; full brightness is a tenth of the picture's width.
    """
    scale = np.float32(TILE) / np.array(flow.shape[1::-1], np.float32)
    pixels = cv2.resize(flow, (TILE, TILE)) * scale
    level = np.clip(np.linalg.norm(pixels, axis=-1) / (TILE / 10), 0, 1)
    picture = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    line = range(TILE // _ARROWS // 2, TILE, TILE // _ARROWS)
    for y, x in itertools.product(line, line):
        end = np.rint(pixels[y, x] + (x, y)).astype(int)
        cv2.arrowedLine(picture, (x, y), end, (255, 255, 255), 1, cv2.LINE_AA, tipLength=0.3)
    return picture


def _tiles(frame: Frame, driver: str = "driving") -> list[Tile]:
    """The driving frame and the prediction, with points; the truth if another subject drives."""
    caption = f"{driver} {frame.number}"
    if frame.found is None:
        return [(caption, as_tile(frame.driving)), ("prediction", as_tile(frame.prediction))]
    marks, places = ", + true, o found", (frame.points, frame.found)
    if frame.prediction is None:
        return [(f"frame {frame.number}{marks}", _marked(frame.driving, *places))]
    if frame.truth is None:
        tile = caption + marks, _marked(frame.driving, *places)
        return [tile, ("prediction", as_tile(frame.prediction))]
    return [
        (caption, as_tile(frame.driving)),
        (f"prediction{marks}", _marked(frame.prediction, *places)),
        ("truth", _marked(frame.truth, frame.points)),
    ]


def _block(title: str, still: Sequence[Tile], frames: Sequence[Frame]) -> Picture:
    columns = [[tile] for tile in still]
    for frame in frames:
        column = _tiles(frame)
        if frame.truth is not None:
            gap = cv2.absdiff(to_levels(frame.truth), to_levels(frame.prediction))
            gap = cv2.multiply(gap, np.full_like(gap, _GAIN))
            column.append((f"difference x{_GAIN}", as_tile(gap)))
        if frame.flow is not None:
            column.append(("taken from (arrows)", show_flow(frame.flow)))
        columns.append(column)
    return in_columns(title, columns)


def in_columns(title: str, columns: Sequence[Sequence[Tile]]) -> Picture:
    """Columns of tiles under a title; short columns end in blank tiles."""
    wide, high = TILE + 2 * _GAP, _CAPTION + TILE + _GAP
    size = _CAPTION + high * max(map(len, columns)), wide * len(columns), 3
    page = np.full(size, _PAPER, np.uint8)
    page[:_CAPTION] = _text_line(title, page.shape[1], _INK)
    for i, column in enumerate(columns):
        for j, (caption, tile) in enumerate(column):
            below = page[_CAPTION + j * high :, i * wide : (i + 1) * wide]
            below[:_CAPTION] = _text_line(caption, wide, _MARK)
            below[_CAPTION:][:TILE, _GAP:-_GAP] = tile
    return page


def _marked(image: Picture, true: Points | None, tracked: Points | None = None) -> Picture:
    """A tile with true points as + and tracked ones as o."""
    picture = as_tile(image)
    for place in _places(true, image):
        cv2.drawMarker(picture, place, _TRUE, cv2.MARKER_CROSS, 2 * _ARM)
    for place in _places(tracked, image):
        cv2.circle(picture, place, _ARM, _TRACKED, 1, cv2.LINE_AA)
    return picture


def _places(points: Points | None, image: Picture) -> Sequence[Sequence[int]]:
    """Pixels of the image as whole pixels of a tile, without those unknown or far outside."""
    if points is None:
        return []
    places = (points + 0.5) * TILE / (image.shape[1], image.shape[0]) - 0.5
    near = (np.abs(places) < 4 * TILE).all(axis=1)
    return np.rint(places[near]).astype(int).tolist()


def as_tile(image: Picture) -> Picture:
    """An image as (TILE, TILE, 3)."""
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image
    return cv2.resize(colour, (TILE, TILE), interpolation=cv2.INTER_AREA)


def _text_line(text: str, width: int, colour: tuple[int, int, int]) -> Picture:
    line = np.full((_CAPTION, width, 3), _PAPER, np.uint8)
    at = (_GAP, _CAPTION - 6)
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font knows no other letters
    cv2.putText(line, plain, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return line


def _stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures below each other, as wide as the widest."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_on_paper(p, _GAP, width - p.shape[1]) for p in pictures])


def _on_paper(picture: Picture, below: int, right: int) -> Picture:
    return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT, value=_PAPER)
