"""Pictures of an evaluation: a strip per clip, and all clips on one page.

A strip's columns are the source and a few driven frames; its rows the driving frames, the
predictions, their absolute difference (three times enlarged) and the deformation as arrows on its
magnitude. A second block shows the same source driven by another subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.support.atomic_files import atomic_path
from ...runtime.support.errors import output_errors
from .metrics import pixel_grid, to_levels
from .reconstruction import ClipResult, Pictures, Sample

Picture = NDArray[np.uint8]

TILE = 192
GAP = 4
_CAPTION = 20
DIFFERENCE_GAIN = 3
_ARROWS = 12  # a side
_PAPER = (250, 250, 250)
_INK = (20, 20, 20)
_MARK = (0, 140, 220)


def clip_strip(result: ClipResult, pictures: Pictures, geometry: str) -> Picture:
    """The strip of one clip, (H, W, 3) RGB."""
    model = result.methods["model"]
    title = (
        f"{result.clip}   L1 ratio {model.l1_ratio:.2f}  low-pass {model.low_pass_ratio:.2f}  "
        f"sharpness {model.sharpness:.2f}"
    )
    blocks = [_block(title, pictures.source, pictures.own, geometry, difference=True)]
    if pictures.other and result.leakage is not None:
        leakage = result.leakage
        title = (
            f"driven by {result.driver}, relative   NCC source {leakage.source:.2f}  "
            f"driving {leakage.driving:.2f} (floor {leakage.floor:.2f})"
        )
        blocks.append(_block(title, pictures.source, pictures.other, geometry, difference=False))
    return stacked(blocks)


def overview_row(result: ClipResult, pictures: Pictures) -> Picture:
    """One clip in a line: source, then driving frame and prediction side by side, twice."""
    ends = [pictures.own[0], pictures.own[-1]] if len(pictures.own) > 1 else pictures.own
    tiles = [("source", as_tile(pictures.source))]
    for sample in ends:
        tiles.append((f"driving {sample.number}", as_tile(sample.driving)))
        tiles.append(("prediction", as_tile(sample.prediction)))
    if pictures.other:
        sample = pictures.other[len(pictures.other) // 2]
        tiles.append((f"other subject {sample.number}", as_tile(sample.driving)))
        tiles.append(("prediction", as_tile(sample.prediction)))
    body = np.concatenate([captioned(tile, caption) for caption, tile in tiles], axis=1)
    title = f"{result.clip}   L1 ratio {result.methods['model'].l1_ratio:.2f}"
    return np.concatenate([title_line(title, body.shape[1]), body])


def write_strip(path: Path, picture: Picture) -> None:
    """Write a PNG, whole. OutputError when it cannot be written."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert ok, "encoding a PNG in memory does not fail"
    with atomic_path(path) as temporary, output_errors(path):
        temporary.write_bytes(data.tobytes())


def strip_name(number: int, clip: str) -> str:
    """A file name for the strip of clip `number`: plain, and no two alike."""
    name = clip.rstrip("/").rpartition("/")[2]
    return f"{number:03d}_{''.join(c if c.isalnum() or c in '._-' else '_' for c in name)}.png"


def overview(rows: Sequence[Picture]) -> Picture:
    """All clips' rows on one page, in two columns and at two thirds of their size."""
    small = [_shrunk(row) for row in rows]
    half = (len(small) + 1) // 2
    columns = [stacked(small[:half]), *([stacked(small[half:])] if small[half:] else [])]
    height = max(column.shape[0] for column in columns)
    padded = [
        cv2.copyMakeBorder(c, 0, height - c.shape[0], 0, 4 * GAP, cv2.BORDER_CONSTANT, value=_PAPER)
        for c in columns
    ]
    return np.concatenate(padded, axis=1)


def show_deformation(deformation: NDArray[np.float32], geometry: str) -> Picture:
    """Arrows from the points of a grid to where they read in the source, over the magnitude.

    Args:
        deformation: (h, w, 2) points.

    Returns:
        (TILE, TILE, 3) RGB; full brightness is a tenth of the picture's width.
    """
    h, w = deformation.shape[:2]
    size = np.array([w, h], np.float32)
    grid = pixel_grid(h, w)
    identity = 2 * grid / (size - 1) - 1 if geometry == "fomm" else (2 * grid + 1) / size - 1
    move = cv2.resize(deformation - identity, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    pixels = move * (TILE / 2)
    level = np.clip(np.linalg.norm(pixels, axis=-1) / (TILE / 10), 0, 1)
    picture = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    step = TILE // _ARROWS
    for y in range(step // 2, TILE, step):
        for x in range(step // 2, TILE, step):
            end = (round(x + float(pixels[y, x, 0])), round(y + float(pixels[y, x, 1])))
            cv2.arrowedLine(picture, (x, y), end, (255, 255, 255), 1, cv2.LINE_AA, tipLength=0.3)
    return picture


def _block(
    title: str, source: Picture, samples: Sequence[Sample], geometry: str, difference: bool
) -> Picture:
    columns = [[("source", as_tile(source))]]
    for sample in samples:
        column = [
            (f"driving {sample.number}", as_tile(sample.driving)),
            ("prediction", as_tile(sample.prediction)),
        ]
        if difference:
            column.append(difference_tile(sample.driving, sample.prediction))
        column.append(("reads in source at", show_deformation(sample.deformation, geometry)))
        columns.append(column)
    return in_columns(title, columns)


def in_columns(title: str, columns: Sequence[Sequence[tuple[str, Picture]]]) -> Picture:
    """Columns of (caption, tile) under a title; short columns end in blank tiles."""
    height = max(len(column) for column in columns)
    drawn = []
    for column in columns:
        tiles = [captioned(tile, caption) for caption, tile in column]
        tiles += [np.full_like(tiles[0], 250)] * (height - len(tiles))
        drawn.append(np.concatenate(tiles))
    body = np.concatenate(drawn, axis=1)
    return np.concatenate([title_line(title, body.shape[1]), body])


def difference_tile(a: Picture, b: Picture) -> tuple[str, Picture]:
    """|a - b|, enlarged, with its caption."""
    gap = cv2.absdiff(to_levels(a), to_levels(b))
    gain = np.full_like(gap, DIFFERENCE_GAIN)
    return f"|difference| x{DIFFERENCE_GAIN}", as_tile(cv2.multiply(gap, gain))


def _shrunk(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    size = (round(width / 1.5), round(height / 1.5))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def as_tile(image: Picture) -> Picture:
    """An image as (TILE, TILE, 3)."""
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image
    return cv2.resize(colour, (TILE, TILE), interpolation=cv2.INTER_AREA)


def captioned(tile: Picture, caption: str) -> Picture:
    """A tile with a frame and a line above it."""
    framed = cv2.copyMakeBorder(tile, 0, GAP, GAP, GAP, cv2.BORDER_CONSTANT, value=_PAPER)
    return np.concatenate([title_line(caption, framed.shape[1], _MARK), framed])


def title_line(text: str, width: int, colour: tuple[int, int, int] = _INK) -> Picture:
    """A line of text."""
    line = np.full((_CAPTION, width, 3), _PAPER, np.uint8)
    at = (GAP, _CAPTION - 6)
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font knows no other letters
    cv2.putText(line, plain, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return line


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures below each other, as wide as the widest."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        cv2.copyMakeBorder(p, 0, GAP, 0, width - p.shape[1], cv2.BORDER_CONSTANT, value=_PAPER)
        for p in pictures
    ]
    return np.concatenate(padded)
