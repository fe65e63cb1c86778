"""Pictures of an evaluation: a strip per clip or pair, and all of them on one page.

The first column is the source; the others are a few driven frames, from the top: the driving frame,
the prediction, the truth of a pair, the absolute difference (three times enlarged) and the
deformation as arrows on its magnitude. A clip's second block shows the same source driven by
another subject. True landmarks are drawn as +, those that the tracker found in the prediction as o.
Tracked points need no prediction: labels are circles, what the model found are crosses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.support.atomic_files import atomic_path
from ...runtime.support.errors import output_errors
from .landmarks import Points
from .metrics import pixel_grid, ratio, to_levels
from .prediction import PairResult
from .reconstruction import ClipResult, Pictures, Sample
from .tables import number
from .tracking import TrackedFrame, TrackingResult

Picture = NDArray[np.uint8]
Tile = tuple[str, Picture]
"""A caption and (TILE, TILE, 3)."""

TILE = 192
GAP = 4
_CAPTION = 20
DIFFERENCE_GAIN = 3
_ARROWS = 12  # a side
_PAPER = (250, 250, 250)
_INK = (20, 20, 20)
_MARK = (0, 140, 220)
_TRUE = (90, 230, 90)
_TRACKED = (255, 170, 40)
_ARM = 5


def clip_strip(result: ClipResult, pictures: Pictures, geometry: str) -> Picture:
    """The strip of one clip, (H, W, 3) RGB."""
    model = result.methods["model"]
    title = (
        f"{result.clip}   L1 ratio {model.l1_ratio:.2f}  low-pass {model.low_pass_ratio:.2f}  "
        f"sharpness {model.sharpness:.2f}"
    )
    blocks = [_block(title, pictures, pictures.own, geometry)]
    if pictures.other and result.leakage is not None:
        leakage = result.leakage
        title = (
            f"driven by {result.driver}, relative   NCC source {leakage.source:.2f}  "
            f"driving {leakage.driving:.2f} (floor {leakage.floor:.2f})"
        )
        blocks.append(_block(title, pictures, pictures.other, geometry))
    return stacked(blocks)


def clip_row(result: ClipResult, pictures: Pictures) -> Picture:
    """One clip in a line: source, then driving frame and prediction side by side, twice."""
    own = pictures.own
    tiles = [tile for i in sorted({0, len(own) - 1}) for tile in _tiles(own[i])]
    if pictures.other:
        tiles += _tiles(pictures.other[len(pictures.other) // 2], "other subject")
    return _row(f"{result.clip}   L1 ratio {result.methods['model'].l1_ratio:.2f}", pictures, tiles)


def pair_strip(result: PairResult, pictures: Pictures, geometry: str) -> Picture:
    """The strip of one pair, (H, W, 3) RGB."""
    return _block(_pair_title(result), pictures, pictures.own, geometry)


def pair_row(result: PairResult, pictures: Pictures) -> Picture:
    """One pair in a line: source, then prediction and truth of the middle and the last frame."""
    own = pictures.own
    tiles = [tile for i in sorted({len(own) // 2, len(own) - 1}) for tile in _tiles(own[i])]
    return _row(_pair_title(result), pictures, tiles)


def track_strip(result: TrackingResult, frames: Sequence[TrackedFrame]) -> Picture:
    """The source of a tracked clip and a few of its frames in a line, (H, W, 3) RGB."""
    share = ratio(result.errors["model"], result.errors["hold"])
    title = (
        f"{result.clip}   error {number(result.errors['model'], 2)} px, "
        f"{number(share, 2)} of hold's"
    )
    columns = [[(_caption(i, frame), _found(frame))] for i, frame in enumerate(frames)]
    return in_columns(title, columns)


def track_row(result: TrackingResult, frames: Sequence[TrackedFrame]) -> Picture:
    """The same with the first and the last frame only."""
    return track_strip(result, [frames[0], *(frames[i] for i in sorted({1, len(frames) - 1}))])


def _caption(place: int, frame: TrackedFrame) -> str:
    return f"{frame.number}: label o, found x" if place else f"source {frame.number}, label o"


def _found(frame: TrackedFrame) -> Picture:
    """A tile with labels as circles, what was found as crosses, and lines between them."""
    picture = as_tile(frame.image)
    known = np.isfinite(frame.true).all(axis=1)
    for x, y in _places(frame.true, frame.image):
        cv2.circle(picture, (x, y), _ARM - 2, _TRUE, 1, cv2.LINE_AA)
    for true, found in zip(frame.true[known], frame.found[known], strict=True):
        ends = _places(np.stack([true, found]), frame.image)
        if len(ends) == 2:
            (x, y), arm = ends[1], _ARM - 2
            cv2.line(picture, ends[0], ends[1], _TRACKED, 1, cv2.LINE_AA)
            cv2.line(picture, (x - arm, y - arm), (x + arm, y + arm), _TRACKED, 1)
            cv2.line(picture, (x - arm, y + arm), (x + arm, y - arm), _TRACKED, 1)
    return picture


def _pair_title(result: PairResult) -> str:
    return (
        f"{result.pair}   skill {number(result.exact.skill['model'], 2)}  "
        f"landmark error {number(result.exact.landmark_ratio, 2)} of hold's  "
        f"L1 ratio {number(result.methods['model'].l1_ratio, 2)}"
    )


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
    small = []
    for row in rows:
        height, width = row.shape[:2]
        size = (round(width / 1.5), round(height / 1.5))
        small.append(cv2.resize(row, size, interpolation=cv2.INTER_AREA))
    half = (len(small) + 1) // 2
    columns = [stacked(small[:half]), *([stacked(small[half:])] if small[half:] else [])]
    height = max(column.shape[0] for column in columns)
    padded = [_on_paper(c, height - c.shape[0], 0, 4 * GAP) for c in columns]
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


def _tiles(sample: Sample, driver: str = "driving") -> list[Tile]:
    """The driving frame, the prediction and the truth of a pair."""
    tiles = [(f"{driver} {sample.number}", as_tile(sample.driving))]
    if sample.true is None or sample.truth is None:
        return [*tiles, ("prediction", as_tile(sample.prediction))]
    found = _marked(sample.prediction, sample.true, sample.tracked)
    truth = _marked(sample.truth, sample.true)
    return [*tiles, ("prediction, + true, o found", found), ("truth", truth)]


def _row(title: str, pictures: Pictures, tiles: Sequence[Tile]) -> Picture:
    source = _marked(pictures.source, pictures.start)
    return in_columns(title, [[("source", source)], *([tile] for tile in tiles)])


def _block(title: str, pictures: Pictures, samples: Sequence[Sample], geometry: str) -> Picture:
    caption = "source" if pictures.start is None else "source, landmarks +"
    columns = [[(caption, _marked(pictures.source, pictures.start))]]
    for sample in samples:
        column = _tiles(sample)
        if sample.truth is not None:
            column.append(_difference(sample.truth, sample.prediction))
        column.append(("reads in source at", show_deformation(sample.deformation, geometry)))
        columns.append(column)
    return in_columns(title, columns)


def in_columns(title: str, columns: Sequence[Sequence[Tile]]) -> Picture:
    """Columns of tiles under a title; short columns end in blank tiles."""
    height = max(len(column) for column in columns)
    drawn = []
    for column in columns:
        tiles = [captioned(tile, caption) for caption, tile in column]
        tiles += [np.full_like(tiles[0], 250)] * (height - len(tiles))
        drawn.append(np.concatenate(tiles))
    body = np.concatenate(drawn, axis=1)
    return np.concatenate([title_line(title, body.shape[1]), body])


def _difference(a: Picture, b: Picture) -> Tile:
    """|a - b|, enlarged."""
    gap = cv2.absdiff(to_levels(a), to_levels(b))
    gain = np.full_like(gap, DIFFERENCE_GAIN)
    return f"|difference| x{DIFFERENCE_GAIN}", as_tile(cv2.multiply(gap, gain))


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
    """Pixels of the image as whole pixels of a tile; what is not known or far outside is left."""
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


def captioned(tile: Picture, caption: str) -> Picture:
    """A tile with a frame and a line above it."""
    framed = _on_paper(tile, GAP, GAP, GAP)
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
    return np.concatenate([_on_paper(p, GAP, 0, width - p.shape[1]) for p in pictures])


def _on_paper(picture: Picture, below: int, left: int, right: int) -> Picture:
    border = cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(picture, 0, below, left, right, border, value=_PAPER)
