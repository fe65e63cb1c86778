"""Landmarks that source and reference share: from a file, or found by the model.

The file is a CSV with the columns image, keypoint, x, y. `image` is `source` or `reference`; x and
y are pixels of the ORIGINAL picture or driving frame, before any crop (0 = centre of the first
pixel). Every landmark is named once for each of the two. The file does not say which driving frame
the reference is, so the user has to choose it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from .alignment import SURE, Places, is_inside
from .animator import Animator
from .media.frames import Crop, Image, shows_something
from .support.errors import ConfigError, InputError
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


class Given(NamedTuple):
    """Places by name, in pixels of the cropped source and reference; a template has the latter
    itself."""

    source: Mapping[str, tuple[float, float]]
    reference: Mapping[str, tuple[float, float]]


Landmarks: TypeAlias = str | Path | Given
"""`auto` (those that the model finds in both pictures), `none` (no alignment at all), a file, or
places."""


class Alignment(NamedTuple):
    """How a pair is aligned: in words, or why it is not; whether by the pictures; and by K named
    landmarks, (2, K, 2) pixels in source and reference."""

    said: str
    pictures: bool = False
    names: tuple[str, ...] = ()
    points: Places = np.empty((2, 0, 2))


def align_pair(
    animator: Animator, landmarks: Landmarks, source: Picture, reference: Picture
) -> Alignment:
    """Align an Animator's source and reference, also by matching the pictures if the model can.

    Raises:
        ConfigError: the model cannot align.
        InputError: a file that cannot be used; places outside of the pictures, or of one alone.
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
    elif isinstance(landmarks, Given):
        found = _both(landmarks)
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
    source, reference = _read(path).values()
    if alone := sorted(source.keys() ^ reference.keys()):
        shown = ", ".join(f"{name!r} ({(source | reference)[name].where})" for name in alone)
        hint = "name each landmark once for the source and once for the reference"
        raise InputError(f"landmarks given for one image only: {shown}", hint)
    if not source:
        raise InputError(f"{path} has no landmarks", "one in both pictures is enough")
    return {name: (place, reference[name]) for name, place in source.items()}


def check_landmarks_fit(landmarks: str | Path, reference: str | int) -> None:
    """ConfigError if a file's landmarks may be of another frame than the reference."""
    if reference == "best" and isinstance(landmarks, Path):
        raise ConfigError(
            f"the landmarks of {landmarks} are of one frame; --reference best may take another",
            "give its number, --reference N; `sonomime animate --reference best --json` says which",
        )


def places_in(path: Path, image: str, picture: Picture) -> dict[str, tuple[float, float]]:
    """Read the landmarks of one of the two images alone, in pixels of its cropped picture.

    Raises:
        InputError: as `read_landmarks`; none of that image, one outside of the picture.
    """
    places = _read(path)[image]
    if not places:
        raise InputError(f"{path} has no landmarks of the {image}", f"write {image} as their image")
    return {name: _inside(name, place, image, picture) for name, place in places.items()}


def sure_of(animator: Animator, picture: Picture) -> dict[str, tuple[float, float]]:
    """The landmarks that the model is sure of in a picture, in its pixels."""
    found = animator.find_landmarks(picture.image) if animator.session.landmarks else []
    sure = {each.name: (each.x, each.y) for each in found if each.probability >= SURE}
    return {name: place for name, place in sure.items() if picture.shows(np.array(place))}


def _read(path: Path) -> dict[str, dict[str, Placed]]:
    """The rows of a file, by image and name."""
    found: dict[str, dict[str, Placed]] = {image: {} for image in IMAGES}
    for line, row in read_table(path, COLUMNS):
        where = f"{path}:{line}"
        image, name = row["image"], row["keypoint"]
        if image not in IMAGES:
            raise InputError(f"{where}: unknown image {image!r}", spelling_hint(image, IMAGES))
        if not is_name(name):
            raise InputError(f"{where}: keypoint is {name[:40]!r}", NAME_HINT)
        places = found[image]
        if name in places:
            what = f"{where}: {name!r} of the {image} is given twice"
            raise InputError(f"{what} (first at {places[name].where})", "keep one of the two rows")
        places[name] = Placed(number(where, "x", row["x"]), number(where, "y", row["y"]), where)
    return found


def _in_pictures(
    landmarks: dict[str, tuple[Placed, Placed]], pictures: tuple[Picture, Picture]
) -> dict[str, Places]:
    """By name, (2, 2): pixels of the cropped source and of the cropped reference."""
    return {
        name: np.array(
            [_inside(name, *each) for each in zip(places, IMAGES, pictures, strict=True)]
        )
        for name, places in landmarks.items()
    }


def _both(given: Given) -> dict[str, Places]:
    """By name, (2, 2)."""
    if alone := sorted(given.source.keys() ^ given.reference.keys()):
        hint = "place each landmark in the source and in the reference"
        raise InputError(f"landmarks of one picture only: {', '.join(alone)}", hint)
    return {name: np.array([place, given.reference[name]]) for name, place in given.source.items()}


def _inside(name: str, place: Placed, image: str, picture: Picture) -> tuple[float, float]:
    """Pixels of the cropped picture; InputError if they lie outside of it."""
    left, top = picture.crop[:2] if picture.crop else (0, 0)
    pixels = place.x - left, place.y - top
    if not picture.shows(np.array(pixels)):
        height, width = picture.image.shape[:2]
        shown = f"the {image} of {width} x {height} pixels"
        if picture.crop:
            shown = f"the part {','.join(map(str, picture.crop))} of the {image}"
        what = f"landmark {name!r} at ({place.x:g}, {place.y:g}) lies outside of {shown}"
        hint = "x and y are pixels of the original picture, before any crop, from 0"
        raise InputError(f"{place.where}: {what}", hint)
    return pixels


def _found(animator: Animator, *pictures: Picture) -> dict[str, Places]:
    """By name, (2, 2): landmarks that the model is sure of, inside both pictures."""
    source, reference = (sure_of(animator, picture) for picture in pictures)
    return {n: np.array([at, reference[n]]) for n, at in source.items() if n in reference}
