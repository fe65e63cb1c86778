"""Labelled frames with their points, for a contact sheet."""

from __future__ import annotations

import colorsys
from collections.abc import Collection, Mapping
from typing import TypeAlias

import cv2
import numpy as np

from ...runtime.media.contact_sheet import PLAIN, WRONG, cell, corners
from ...runtime.media.frames import Crop, Image

COLUMNS = 4
_SIDE = 380  # of a cell, pixels
_FONT, _SIZE, _LINE = cv2.FONT_HERSHEY_SIMPLEX, 0.36, 15
_MOST_LISTED = 40  # names in the legend
_TURN = 0.618034  # of the colour wheel, so that neighbours differ

Colour: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[int, int, int]
"""Where a line of text begins, x and y, and how long it is, in pixels."""


class Marker:
    """Draws points, each name in its own colour.

    Args:
        names: how often each is labelled.
    """

    def __init__(self, names: Mapping[str, int]) -> None:
        self._names = names
        self._colours = {name: _colour(place) for place, name in enumerate(sorted(names))}

    def legend(self) -> Image:
        """A cell that lists the names in their colours, with their counts."""
        listed = sorted(self._names)[:_MOST_LISTED]
        rest = len(self._names) - len(listed)
        made = np.zeros((_LINE * (len(listed) + 2), _SIDE, 3), np.uint8)
        for place, name in enumerate(listed):
            self._write(made, f"{name}  {self._names[name]}", (6, _LINE * (place + 1)), name)
        if rest:
            at = (6, _LINE * (len(listed) + 1))
            cv2.putText(made, f"and {rest} more", at, _FONT, _SIZE, PLAIN, 1, cv2.LINE_AA)
        return made

    def draw(
        self,
        image: Image,
        said: str,
        points: Mapping[str, tuple[float, float]],
        crop: Crop | None,
        suspects: Collection[str],
    ) -> Image:
        """A frame with its points; those that jump are ringed, and named in the line above."""
        if suspects:
            said = f"{said}: {', '.join(sorted(suspects))}"
        outline = None if crop is None else corners(crop)
        made = cell(image, said, _SIDE, outline, colour=WRONG if suspects else PLAIN)
        height, width = image.shape[:2]
        scale = _SIDE / max(width, height)
        top = made.shape[0] - max(1, round(height * scale))  # below the line of text
        at = {
            name: (round((x + 0.5) * scale), round((y + 0.5) * scale) + top)
            for name, (x, y) in points.items()
            if 0 <= x + 0.5 <= width and 0 <= y + 0.5 <= height
        }
        middle = sum(x for x, _ in at.values()) / max(1, len(at))
        taken: list[Box] = []
        for name in sorted(at, key=lambda name: at[name][1]):
            place = _free(taken, at[name], name, made.shape[1], at[name][0] < middle)
            self._write(made, name, place[:2], name)
        for name, place in at.items():
            cv2.circle(made, place, 3, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(made, place, 2, self._colours[name], -1, cv2.LINE_AA)
            if name in suspects:
                cv2.circle(made, place, 9, WRONG, 1, cv2.LINE_AA)
        return made

    def _write(self, image: Image, text: str, at: tuple[int, int], name: str) -> None:
        for colour, thickness in (((0, 0, 0), 3), (self._colours[name], 1)):
            cv2.putText(image, text, at, _FONT, _SIZE, colour, thickness, cv2.LINE_AA)


def _free(taken: list[Box], at: tuple[int, int], name: str, width: int, left: bool) -> Box:
    """A place for a name to the left or right of its point, where no other name stands."""
    (wide, _), _ = cv2.getTextSize(name, _FONT, _SIZE, 1)
    x = at[0] - 7 - wide if left else at[0] + 7
    x, y = min(max(0, x), max(0, width - wide)), at[1] + 4
    while any(
        abs(y - other) < _LINE - 4 and x < start + length and start < x + wide
        for start, other, length in taken
    ):
        y += 2
    taken.append((x, y, wide))
    return taken[-1]


def _colour(place: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(place * _TURN % 1, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
