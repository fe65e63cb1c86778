"""Landmarks that source and reference share: from a file, or found by the model.

The file is a CSV with the columns image, keypoint, x, y. `image` is `source` or `reference`; x and
y are pixels of the ORIGINAL picture or driving frame, before any crop (0 = centre of the first
pixel). Every landmark is named once for each of the two. The file does not say which driving frame
the reference is, so the user has to choose it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .alignment import SURE, Landmark, is_inside
from .animator import Animator
from .media.frames import Crop, Image, shows_something
from .support.errors import ConfigError, InputError
from .support.table import NAME_HINT, is_name, number, read_table, spelling_hint

COLUMNS = ("image", "keypoint", "x", "y")
IMAGES = ("source", "reference")

Points = NDArray[np.float64]


class Placed(NamedTuple):
    """A landmark's place in pixels of the original picture, and the line of the file."""

    x: float
    y: float
    where: str


Places = Mapping[str, Placed]
"""Landmarks of one picture, by name."""


class Picture(NamedTuple):
    """The source or the reference frame, cut out of the original by `crop`."""

    image: Image
    crop: Crop | None = None


class Alignment(NamedTuple):
    """How a pair is aligned: in words, or why it is not ("" if the model cannot align); whether by
    the pictures; and by K named landmarks, (K, 2) pixels in each picture."""

    said: str
    pictures: bool = False
    names: tuple[str, ...] = ()
    source: Points = np.empty((0, 2))
    reference: Points = np.empty((0, 2))


def align_pair(
    animator: Animator, landmarks: str | Path, source: Picture, reference: Picture | None
) -> Alignment:
    """Align an Animator's source and reference, also by matching the pictures if the model can.

    Args:
        landmarks: `auto` (those that the model finds in both pictures), `none` (no alignment at
            all), or a file.
        reference: None if it cannot be read before the clip is animated.

    Raises:
        ConfigError: a file, and the model cannot align.
        InputError: a file that cannot be used, or with landmarks outside of the pictures.
        BackendError: a stage failed.
    """
    session = animator.session
    why = _shows_nothing(source, reference)
    pictures = session.can_register and not why
    if isinstance(landmarks, Path):
        if not session.can_align:
            raise ConfigError(
                "this model cannot align source and reference: --landmarks has no effect",
                "leave it out; landmarks are for models that move by displacements",
            )
        both = read_landmarks(landmarks)
        if reference is None:
            raise InputError(
                "the driving clip cannot be read twice, so its reference cannot be aligned",
                "leave --landmarks out, or record the clip to a file",
            )
        names = tuple(both["source"])
        points = [
            _in_picture(both[which], which, picture)
            for which, picture in zip(IMAGES, (source, reference), strict=True)
        ]
    elif not session.can_align:
        return Alignment("")
    elif landmarks == "none":
        animator.unalign()
        return Alignment("not aligned, as asked")
    else:
        names, points, missing = _found_in_both(animator, source, reference)
        if not names and not pictures:
            animator.unalign()
            return Alignment(f"not aligned: {why or missing}")
    placed, kept = points if names else (None, None)
    animator.align(placed, kept, pictures)
    said = " and ".join([", ".join(names)] * bool(names) + ["what both pictures show"] * pictures)
    return Alignment(f"aligned by {said}", pictures, names, *points)


def read_landmarks(path: Path) -> dict[str, Places]:
    """Read a file of landmarks.

    Returns:
        `source` and `reference`: the same names in the same order, the file's.

    Raises:
        InputError: naming file and line: a malformed table, an unknown image, an impossible name, a
            coordinate that is not a finite number, a landmark given twice or for one image only, or
            no landmark.
    """
    places: dict[str, dict[str, Placed]] = {image: {} for image in IMAGES}
    for line, row in read_table(path, COLUMNS):
        where = f"{path}:{line}"
        image, name = row["image"], row["keypoint"]
        if image not in places:
            raise InputError(f"{where}: unknown image {image!r}", spelling_hint(image, IMAGES))
        if not is_name(name):
            raise InputError(f"{where}: keypoint is {name[:40]!r}", NAME_HINT)
        if name in places[image]:
            raise InputError(
                f"{where}: {name!r} of the {image} is given twice "
                f"(first at {places[image][name].where})",
                "keep one of the two rows",
            )
        x, y = (number(where, axis, row[axis]) for axis in ("x", "y"))
        places[image][name] = Placed(x, y, where)
    source, reference = (places[image] for image in IMAGES)
    if alone := sorted(source.keys() ^ reference.keys()):
        shown = ", ".join(f"{name!r} ({(source | reference)[name].where})" for name in alone)
        raise InputError(
            f"landmarks given for one image only: {shown}",
            "name each landmark once for the source and once for the reference",
        )
    if not source:
        raise InputError(f"{path} has no landmarks", "one in both pictures is enough")
    return {"source": source, "reference": {name: reference[name] for name in source}}


def _in_picture(places: Places, which: str, picture: Picture) -> Points:
    """Landmarks as (K, 2) pixels of the cropped picture."""
    height, width = picture.image.shape[:2]
    corner = np.array(picture.crop[:2] if picture.crop else (0, 0), np.float64)
    points = np.array([(place.x, place.y) for place in places.values()]) - corner
    for name, place, point in zip(places, places.values(), points, strict=True):
        if not is_inside(point, width, height):
            shown = f"the {which} of {width} x {height} pixels"
            if picture.crop:
                shown = f"the part {','.join(map(str, picture.crop))} of the {which} that is used"
            raise InputError(
                f"{place.where}: landmark {name!r} at ({place.x:g}, {place.y:g}) lies outside of "
                f"{shown}",
                "x and y are pixels of the original picture, before any crop, from 0",
            )
    return points


def _found(animator: Animator, image: Image) -> dict[str, Landmark]:
    """Landmarks that the model is sure of, inside the picture."""
    height, width = image.shape[:2]
    return {
        each.name: each
        for each in animator.find_landmarks(image)
        if each.probability >= SURE and is_inside(np.array([each.x, each.y]), width, height)
    }


def _found_in_both(
    animator: Animator, source: Picture, reference: Picture | None
) -> tuple[tuple[str, ...], list[Points], str]:
    """Names and (K, 2) points of the landmarks found in both pictures, or why there are none."""
    if not animator.session.landmarks:
        return (), [], "this model finds no landmarks; give them by --landmarks"
    if reference is None:
        return (), [], "the driving clip cannot be read twice"
    found = [_found(animator, picture.image) for picture in (source, reference)]
    names = tuple(name for name in found[0] if name in found[1])
    points = [
        np.array([[each[name].x, each[name].y] for name in names]).reshape(-1, 2) for each in found
    ]
    return names, points, "no landmark was found in both source and reference"


def _shows_nothing(source: Picture, reference: Picture | None) -> str:
    """Which picture cannot be matched; "" if both can."""
    for what, picture in (("source", source), ("reference", reference)):
        if picture is not None and not shows_something(picture.image):
            return f"the {what} is black or of one level"
    return ""
