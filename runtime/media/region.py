"""Find the ultrasound picture in a clip or still that shows more: borders, rulers, clocks, text.

Tissue differs from the rest of a screen in two ways: it changes from frame to frame, and it has
speckle, so hardly any two neighbouring pixels are equal. Text and lines are thin; menus, bars and
backgrounds are flat; clocks and ECG traces change, but are small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.errors import InputError
from .frames import Crop, Image, check_image, to_channels

Mask = NDArray[np.bool_]

_SIDE = 512  # pixels of the longer side that are looked at, at most
_CHANGE = 0.2  # grey levels from frame to frame, on average; lossy files change by less
_NOISE = 0.5  # grey levels at most: more is tissue that fills the frame
_SPECKLE = 1, 56  # grey levels between neighbouring pixels; those of text and lines are larger
_THICK = 0.045  # of the longer side: thinner things, such as a line of text, are removed
_LEAST = 0.02  # of the frame: a smaller part is a clock, a cursor, a logo
_MOSTLY = 0.8  # of the tissue
_BLACK, _DIM = 24, 48  # grey levels
_WHOLE = 0.95  # of both sides of the frame: such a box is the whole frame, if the rest is black
_FULL = 0.97  # of its box: an outline that covers so much is a rectangle
_CROPPED = 0.7  # of the frame: the box of a picture that need not be cropped
_CLUTTER = 0.002  # of the frame: less may be the rim of the picture itself


@dataclass(frozen=True)
class Region:
    """Where the ultrasound picture lies.

    Attributes:
        box: the rectangle around it, in pixels of the frame.
        shape: "rectangle", or "sector" for any other convex shape.
        outline: (N, 2) int, the corners (x, y) of a convex polygon around it, within the box.
        share: area of the outline as a share of the frame, in (0, 1].
        clutter: share of the frame that is beside the outline, not next to it, and not black, in
            [0, 1): text, menus, rulers.
        found: whether there is an ultrasound picture; if not, all of the frame is the answer.
        uncropped: whether the frame shows so much else that it should be cropped before it drives
            anything: clutter, or wide borders.
    """

    box: Crop
    shape: str
    outline: NDArray[np.int32]
    share: float
    clutter: float
    found: bool
    uncropped: bool

    def mask(self, height: int, width: int) -> Mask:
        """(height, width), True within the outline and on it."""
        return _filled(self.outline, height, width)


def find_region(frames: Iterable[Image]) -> Region:
    """Find the largest ultrasound picture in the frames of one clip, or in a still.

    Args:
        frames: uint8, (H, W) or (H, W, 3), of one size. 8 to 32 of them, spread over the clip, are
            enough. A single one is judged by its texture.

    Returns:
        The region; the whole frame if nothing is found, as in a black one.

    Raises:
        InputError: no frame, not an image, or several sizes.
    """
    import cv2

    sizes, small, step = set(), [], 1
    for frame in frames:  # one at a time: whole frames can be large
        sizes.add(check_image(frame).shape[:2])
        step = -(-max(frame.shape[:2]) // _SIDE)
        small.append(to_channels(np.array(frame[::step, ::step]), 1))
    if len(sizes) != 1:
        raise InputError(f"a region is looked for in frames of one size, not of {len(sizes)}")
    height, width = sizes.pop()
    middle = small[len(small) // 2]
    changing, noise = _moving(small)
    moving = _largest(_thick(changing))
    steps = _steps(middle)
    speckle = _thick(_dense((steps >= _SPECKLE[0] + 3 * noise) & (steps <= _SPECKLE[1])))
    # Change is the better witness, unless most of the tissue rests.
    found = _with_parts(moving, speckle) if moving.mean() >= _LEAST else _largest(speckle)
    if moving.any() and moving.sum() >= _MOSTLY * found.sum():
        found = moving
    is_there = bool(found.mean() >= _LEAST)
    found = _grown(found, middle) if is_there else np.ones_like(found)
    points = cv2.findNonZero(found.astype(np.uint8)) * step
    last = width - 1, height - 1
    hull = cv2.convexHull(np.concatenate([points, np.minimum(points + step - 1, last)]))
    box = Crop(*cv2.boundingRect(hull))
    full = cv2.contourArea(hull) >= _FULL * (box.w - 1) * (box.h - 1)
    lit = middle > _BLACK
    lit[:2] = lit[-2:] = lit[:, :2] = lit[:, -2:] = False  # a line around the frame is no text
    beside = lit.copy()
    beside[box.y // step : (box.y + box.h) // step, box.x // step : (box.x + box.w) // step] = False
    nearly = box.w >= _WHOLE * width and box.h >= _WHOLE * height
    if nearly and beside.mean() <= _CLUTTER:
        box = Crop(0, 0, width, height)
    right, bottom = box.x + box.w - 1, box.y + box.h - 1
    corners = [(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom)]
    outline = np.asarray(corners if full else hull[:, 0], np.int32)
    inside = _filled(outline, height, width)
    near = cv2.dilate(inside[::step, ::step].astype(np.uint8), _disc(middle)) > 0
    clutter = float((lit & ~near).mean())
    uncropped = clutter > _CLUTTER or box.w * box.h < _CROPPED * width * height
    shape = "rectangle" if full else "sector"
    return Region(box, shape, outline, float(inside.mean()), clutter, is_there, uncropped)


def _moving(frames: Sequence[Image]) -> tuple[Mask, float]:
    """Where frames differ from those before them again and again, and by how much the quietest
    parts do. What changes once or twice, as at a cut or when a name is shown, does not count."""
    import cv2

    total, most, second = np.zeros((3, *frames[0].shape), np.float32)
    for before, after in pairwise(frames):
        change = cv2.absdiff(before, after).astype(np.float32)
        total += change
        second = np.maximum(second, np.minimum(most, change))
        most = np.maximum(most, change)
    count = max(len(frames) - 1, 1)
    if count > 6:
        total -= most + second
        count -= 2
    mean = total / count
    noise = min(_NOISE, float(np.percentile(cv2.blur(mean, (5, 5)), 2)))
    return _dense(mean > max(_CHANGE, 3 * noise)), noise


def _grown(core: Mask, image: Image) -> Mask:
    """The core with the parts of the tissue beside it that are too dark or smooth to be found by
    their own change or speckle."""
    import cv2

    hull = _filled(cv2.convexHull(cv2.findNonZero(core.astype(np.uint8))), *core.shape)
    rough = (_steps(image) > 0).astype(np.float32)
    flat = cv2.blur(rough, (5, 5)) < 0.01
    counts = np.bincount(image[flat & ~hull], minlength=256)
    level = int(counts.argmax())  # of the background
    if counts[max(level - 1, 0) : level + 2].sum() < 0.1 * image.size:
        return core
    if level <= _BLACK:  # all that is not background, but bars and buttons
        other = (cv2.absdiff(image, np.full_like(image, level)) > 1) & ~(flat & (image > _DIM))
    else:  # what is dark in spite of a bright background, and not quite flat
        other = (image <= _BLACK) & (cv2.blur(rough, (15, 15)) > 0.1)
    grown = _with_parts(core, _thick(_dense(other) & ~core))
    return grown if _at_edges(grown) < _at_edges(core) + 0.4 else core


def _at_edges(mask: Mask) -> float:
    """The share of the frame's edge that it covers. A shaded background covers much of it."""
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


def _steps(image: Image) -> NDArray[np.int16]:
    """How much each pixel differs from its neighbours at the right and below."""
    levels = image.astype(np.int16)
    steps = np.zeros_like(levels)
    steps[:, :-1] = abs(np.diff(levels, axis=1))
    steps[:-1] = np.maximum(steps[:-1], abs(np.diff(levels, axis=0)))
    return steps


def _dense(mask: Mask) -> Mask:
    """Where it covers most of the pixels around."""
    import cv2

    return np.asarray(cv2.blur(mask.astype(np.float32), (9, 9)) > 0.5)


def _thick(mask: Mask) -> Mask:
    """Without its thin parts."""
    import cv2

    disc = _disc(mask)
    margin = len(disc)  # without it, a header along the edge of the frame would count as thick
    wide = np.pad(mask.astype(np.uint8), margin)
    opened = cv2.morphologyEx(wide, cv2.MORPH_OPEN, disc)
    return opened[margin:-margin, margin:-margin] > 0


def _disc(picture: NDArray[Any]) -> Image:
    """As wide as a thing in the picture has to be to count as thick."""
    import cv2

    odd = int(_THICK * max(picture.shape)) | 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (odd, odd)), np.uint8)


def _filled(outline: NDArray[Any], height: int, width: int) -> Mask:
    import cv2

    return cv2.fillConvexPoly(np.zeros((height, width), np.uint8), outline, (1,)) > 0


def _with_parts(core: Mask, others: Mask) -> Mask:
    """The core with all others that touch it."""
    import cv2

    _, parts = cv2.connectedComponents((core | others).astype(np.uint8))
    return np.isin(parts, np.unique(parts[core]))


def _largest(mask: Mask) -> Mask:
    import cv2

    _, parts, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = boxes[1:, cv2.CC_STAT_AREA]
    return np.asarray(parts == 1 + areas.argmax()) if len(areas) else np.zeros_like(mask)
