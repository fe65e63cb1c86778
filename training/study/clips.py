"""The clips of a study, made alike: size, length, rate, codec, metadata and the file's length."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...runtime.media.frames import resize
from ...runtime.readers.source import DEFAULT_FPS
from ...runtime.sinks.open_sink import open_sink
from ...runtime.sinks.video import MP4_ENCODERS
from ...runtime.support.errors import ConfigError, InputError, OutputError
from .arms import Item, Look

METADATA = {
    "title": "sonomime reader study",
    "comment": "It may be synthetic. For training and simulation only; not a medical device.",
}
"""The same in every clip, real or synthetic."""
_UNPLAYABLE = "mpeg4"
"""The one of MP4_ENCODERS whose videos browsers do not play."""
_SAME_SHAPE, _SAME_RATE = 1.02, 1.01
"""Largest ratio of aspect ratios, and of frame rates, that pass as equal."""


class Recipe(NamedTuple):
    """How the clips of a group are made: the picture's (width, height), the size to which each
    clip is brought inside of it, how many frames, frames a second."""

    canvas: tuple[int, int]
    boxes: Sequence[tuple[int, int]]
    frames: int
    fps: Fraction


def parse_size(text: str) -> tuple[int, int]:
    """Read "WIDTHxHEIGHT" in pixels.

    Raises:
        ConfigError: anything else, an odd side (H.264 has none), below 16 or above 4096.
    """
    found = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if any(side % 2 or not 16 <= side <= 4096 for side in sides):
        raise ConfigError(f"cannot read the size {text!r}", "even numbers, as in 800x600")
    return sides


def smallest(looks: Sequence[Look]) -> tuple[int, int]:
    """The (width, height) of the smallest clip, with even sides, as H.264 wants them."""
    width, height = min((look.size for look in looks), key=lambda size: size[0] * size[1])
    return width - width % 2, height - height % 2


def recipe(
    items: Sequence[Item], looks: Sequence[Look], canvas: tuple[int, int], matched: bool
) -> Recipe:
    """How the clips of a group are made alike.

    Raises:
        InputError: the clips of a case have different shapes or frame rates.
    """
    shapes = [look.size[0] / look.size[1] for look in looks]
    if matched and max(shapes) / min(shapes) > _SAME_SHAPE:
        one, other = items[int(np.argmin(shapes))], items[int(np.argmax(shapes))]
        raise InputError(
            f"{one.path} and {other.path} show the same case in different shapes "
            f"({_by(looks[items.index(one)])} and {_by(looks[items.index(other)])} pixels), which "
            "tells the arms apart",
            "crop them alike first: a case has to have the same shape in all arms",
        )
    rates = [look.fps for look in looks if look.fps is not None] or [DEFAULT_FPS]
    if max(rates) > _SAME_RATE * min(rates):
        one, other = (items[[look.fps for look in looks].index(f(rates))] for f in (min, max))
        raise InputError(
            f"{one.path} has {float(min(rates)):.4g} frames a second, {other.path} "
            f"{float(max(rates)):.4g}, which tells the arms apart",
            "if they belong together frame by frame, --fps R shows all clips at R a second",
        )
    # To the pixel the same box for a case.
    boxes = [_inside((looks[0] if matched else look).size, canvas) for look in looks]
    return Recipe(canvas, boxes, min(look.frames for look in looks), rates[0])


def check_encoder() -> None:
    """Raises OutputError if PyAV has no encoder of videos that browsers play."""
    import av

    found = [name for name, _ in MP4_ENCODERS if name in av.codec.codecs_available]
    if found[:1] in ([], [_UNPLAYABLE]):
        hint = "install a PyAV with libx264, libopenh264 or libvpx-vp9: its wheels have it"
        raise OutputError("PyAV has no encoder of videos that browsers play", hint)


def write_clip(
    path: Path, item: Item, box: tuple[int, int], made: Recipe, fps: Fraction | None
) -> None:
    """Write a clip as `made` says; `fps`: as its file was read before.

    Raises:
        OutputError: it cannot be written.
    """
    (width, height), (w, h) = made.canvas, box
    left, top = (width - w) // 2, (height - h) // 2
    with open_sink(path, made.canvas, 1, made.fps, METADATA) as sink:
        for frame in islice(item.open(fps), made.frames):
            canvas = np.zeros((height, width), np.uint8)
            canvas[top : top + h, left : left + w] = resize(frame.image, w, h)
            sink.write(canvas)


def pad_alike(paths: Sequence[Path]) -> None:
    """Bring MP4 files to one length by a `free` box at their ends (ISO/IEC 14496-12, 8.1.2):
    blurred clips are smaller files."""
    lengths = [path.stat().st_size for path in paths]
    for path, length in zip(paths, lengths, strict=True):
        room = max(lengths) + 8 - length
        with path.open("ab") as file:
            file.write(struct.pack(">I4s", room, b"free") + bytes(room - 8))


def _inside(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    w, h = (max(1, min(side, round(s * scale))) for s, side in zip(size, canvas, strict=True))
    return w, h


def _by(look: Look) -> str:
    return " x ".join(map(str, look.size))
