"""Which part of a frame is read: as asked, as the file names it, or as it is found."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ..media.frames import Crop, crop_image
from ..media.region import Mask, Region
from ..support.errors import InputError
from .reading import Reading


class Looked(Protocol):
    """What is needed of a source."""

    path: Path
    how: Reading
    size: tuple[int, int]
    named_region: Crop | None

    def find_region(self) -> Region: ...

    def note(self, text: str) -> None: ...


def choose_region(
    source: Looked, stored: tuple[int, int]
) -> tuple[Crop | None, str, Region | None]:
    """The part that is read, in pixels of the whole frame, None for all; who says so; and what was
    found, if it was looked for.

    Args:
        stored: (width, height) of a frame before its pixels were made square.

    Raises:
        InputError: a crop that reaches outside, a region that is not there; or nothing was found,
            and all else should be blackened.
    """
    how, (width, height) = source.how, source.size
    if how.region is not None and source.named_region is None:
        hint = f"leave out {how.option}region"
        raise InputError(f"{source.path} names no ultrasound regions", hint)
    if isinstance(how.crop, Crop):
        crop_image(np.empty((height, width), np.uint8), how.crop, str(source.path))
        return how.crop, "as asked", None
    if source.named_region is not None:
        across, down = width / stored[0], height / stored[1]
        x, y, w, h = source.named_region
        crop = Crop(round(x * across), round(y * down), round(w * across), round(h * down))
        return crop, "named by the file", None
    if how.crop is None and not how.mask:
        return None, "", None
    found, option = source.find_region(), f"{how.option}crop X,Y,W,H"
    if not found.found and how.mask:
        fault = f"{source.path}: no ultrasound region is found, so nothing can be blackened"
        raise InputError(fault, f"name it: {option} (with --mask-outside-region)")
    if not found.found:
        source.note(f"no ultrasound region is found: all is read; set it with {option}")
    elif how.mask and found.mask(height, width).all():
        source.note("the ultrasound region is all of the frame: nothing is blackened")
    return found.box, f"found: {found.shape}", found


def inside(crop: Crop, found: Region | None, size: tuple[int, int]) -> Mask:
    """(H, W), True within the crop, and within the outline of what was found."""
    width, height = size
    x, y, w, h = crop
    mask = np.zeros((height, width), np.bool_)
    mask[y : y + h, x : x + w] = True
    return mask if found is None else mask & found.mask(height, width)


def clutter(source: Looked, found: Region) -> str:
    """What to say of a frame that shows more than ultrasound, "" if it does not."""
    if not found.uncropped:
        return ""
    if found.box == (0, 0, *source.size):
        return (
            "text or the like seems to stand beside the ultrasound sector: --mask-outside-region "
            "blackens it"
        )
    box, option = ",".join(map(str, found.box)), f"{source.how.option}crop"
    return (
        f"it seems to show more than the ultrasound picture: use {option} auto (it takes {box}) or "
        f"{option} X,Y,W,H"
    )
