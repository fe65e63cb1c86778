"""Landmarks that source and reference share: from a file, or found by the model.

The file is a CSV with the columns image, keypoint, x, y. `image` is `source` or `reference`; x and
y are pixels of the ORIGINAL picture or driving frame, before any crop (0 = centre of the first
pixel). Every landmark is named once for each of the two. The file does not say which driving frame
the reference is, so the user has to choose it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .alignment import SURE, Places, is_inside
from .animator import Animator
from .media.frames import Crop, Image, shows_something
from .support.errors import InputError
from .support.table import NAME_HINT, is_name, number, read_table, spelling_hint

COLUMNS = ("image", "keypoint", "x", "y")
IMAGES = ("source", "reference")


class Placed(NamedTuple):
    """A landmark's place in pixels of the original picture, and the line of the file."""

    x: float
    y: float
    where: str


class Picture(NamedTuple):
    """The source or the reference frame, cut out of the original by `crop`."""

    image: Image
    crop: Crop | None = None

    def shows(self, pixels: Places) -> bool:
        """Whether a place lies on it."""
        return bool(is_inside(pixels, self.image.shape[1], self.image.shape[0]))


class Alignment(NamedTuple):
    """How a pair is aligned: in words, or why it is not; whether by the pictures; and by K named
    landmarks, (2, K, 2) pixels in source and reference."""

    said: str
    pictures: bool = False
    names: tuple[str, ...] = ()
    points: Places = np.empty((2, 0, 2))


def align_pair(
    animator: Animator, landmarks: str | Path, source: Picture, reference: Picture
) -> Alignment:
    """Align an Animator's source and reference, also by matching the pictures if the model can.

    Args:
        landmarks: `auto` (those that the model finds in both pictures), `none` (no alignment at
            all), or a file.

    Raises:
        ConfigError: the model cannot align.
        InputError: a file that cannot be used, or with landmarks outside of the pictures.
        BackendError: a stage failed.
    """
    if landmarks == "none":
        animator.unalign()
        return Alignment("not aligned, as asked")
    session, why = animator.session, "no landmark was found in both source and reference"
    dark = [not shows_something(picture.image) for picture in (source, reference)]
    pictures = session.can_register and not any(dark)
    found: dict[str, Places] = {}
    if isinstance(landmarks, Path):
        found = _in_pictures(read_landmarks(landmarks), (source, reference))
    elif session.landmarks:
        found = _found(animator, source, reference)
    else:
        why = "this model finds no landmarks; give them by --landmarks"
    if not found and not pictures:
        animator.unalign()
        if any(dark):
            why = f"the {IMAGES[dark.index(True)]} is black or of one level"
        return Alignment(f"not aligned: {why}")
    points = np.array(list(found.values())).reshape(-1, 2, 2).swapaxes(0, 1)
    source_points, reference_points = points if found else (None, None)
    animator.align(source_points, reference_points, pictures)
    said = " and ".join([", ".join(found)] * bool(found) + ["what both pictures show"] * pictures)
    return Alignment(f"aligned by {said}", pictures, tuple(found), points)


def read_landmarks(path: Path) -> dict[str, tuple[Placed, Placed]]:
    """Read a file of landmarks: by name, in the file's order, its place in source and reference.

    Raises:
        InputError: naming file and line: a malformed table, an unknown image, an impossible name, a
            coordinate that is not a finite number, a landmark given twice or for one image only, or
            no landmark.
    """
    source: dict[str, Placed] = {}
    reference: dict[str, Placed] = {}
    for line, row in read_table(path, COLUMNS):
        where = f"{path}:{line}"
        image, name = row["image"], row["keypoint"]
        if image not in IMAGES:
            raise InputError(f"{where}: unknown image {image!r}", spelling_hint(image, IMAGES))
        if not is_name(name):
            raise InputError(f"{where}: keypoint is {name[:40]!r}", NAME_HINT)
        places = source if image == "source" else reference
        if name in places:
            what = f"{where}: {name!r} of the {image} is given twice"
            raise InputError(f"{what} (first at {places[name].where})", "keep one of the two rows")
        places[name] = Placed(number(where, "x", row["x"]), number(where, "y", row["y"]), where)
    if alone := sorted(source.keys() ^ reference.keys()):
        shown = ", ".join(f"{name!r} ({(source | reference)[name].where})" for name in alone)
        hint = "name each landmark once for the source and once for the reference"
        raise InputError(f"landmarks given for one image only: {shown}", hint)
    if not source:
        raise InputError(f"{path} has no landmarks", "one in both pictures is enough")
    return {name: (place, reference[name]) for name, place in source.items()}


def _in_pictures(
    landmarks: dict[str, tuple[Placed, Placed]], pictures: tuple[Picture, Picture]
) -> dict[str, Places]:
    """By name, (2, 2): pixels of the cropped source and of the cropped reference."""
    corners = np.array([each.crop[:2] if each.crop else (0, 0) for each in pictures], np.float64)
    found = {}
    for name, places in landmarks.items():
        found[name] = np.array([place[:2] for place in places]) - corners
        rows = zip(IMAGES, pictures, places, found[name], strict=True)
        for which, picture, place, pixels in rows:
            if not picture.shows(pixels):
                height, width = picture.image.shape[:2]
                shown = f"the {which} of {width} x {height} pixels"
                if picture.crop:
                    shown = f"the part {','.join(map(str, picture.crop))} of the {which}"
                raise InputError(
                    f"{place.where}: landmark {name!r} at ({place.x:g}, {place.y:g}) lies outside "
                    f"of {shown}",
                    "x and y are pixels of the original picture, before any crop, from 0",
                )
    return found


def _found(animator: Animator, *pictures: Picture) -> dict[str, Places]:
    """By name, (2, 2): landmarks that the model is sure of, inside both pictures."""
    found = {}
    for pair in zip(*(animator.find_landmarks(each.image) for each in pictures), strict=True):
        pixels = np.array([(each.x, each.y) for each in pair])
        sure = all(each.probability >= SURE for each in pair)
        if sure and all(map(Picture.shows, pictures, pixels)):
            found[pair[0].name] = pixels
    return found
