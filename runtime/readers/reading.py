"""How to read a picture or clip, what came of it, and what it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray

from ..media.frames import AskedCrop, Crop, Image
from ..media.levels import Window
from ..support.errors import ConfigError

OnDamage: TypeAlias = Literal["keep", "skip", "stop"]


@dataclass(frozen=True)
class Reading:
    """How to read a picture or clip.

    Attributes:
        crop: the part of every frame to keep, in pixels of the frame as it is displayed; "auto":
            the ultrasound region that the file names or that is found; None: the region that the
            file names, or all.
        window: stored values that become black and white; None: as the file says, or found.
        fps: frames a second, whatever the file says.
        region: number of the ultrasound region of a DICOM file, counted from 0.
        mask: keep the whole frame, but black outside of the region.
        on_damage: "keep" what comes before the first damage, "skip" damaged frames alone, or
            "stop" with an error.
        strict: what would be assumed or dropped is an error.
        timed: whether times matter; if not, an unknown rate is nothing to speak of.
        option: how the options of this input begin, for what is said about it.
    """

    crop: AskedCrop = None
    window: Window | None = None
    fps: Fraction | None = None
    region: int | None = None
    mask: bool = False
    on_damage: OnDamage = "keep"
    strict: bool = False
    timed: bool = True
    option: str = "--"


IS_SYNTHETIC = "it is synthetic"
"""Noted of a file that says so. Nothing is assumed by that, so it passes when strict."""
AS_IS = Reading()
"""As the file says."""


def parse_rate(text: str) -> Fraction:
    """Read frames a second: "25", "29.97" or "30000/1001".

    Raises:
        ConfigError: not a number above 0 and below 100,000.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate < 100_000:
        hint = "write it as a number, for example 25 or 30000/1001"
        raise ConfigError(f"cannot read the frame rate {text!r}", hint)
    return rate


def mean_rate(seconds: Sequence[float]) -> Fraction | None:
    """Frames a second on average; None where times do not give one from 0 to 100,000."""
    span = seconds[-1] - seconds[0] if len(seconds) > 1 else 0.0
    if not (len(seconds) - 1) / 100_000 < span < math.inf:
        return None
    return Fraction((len(seconds) - 1) / span).limit_denominator(1_000_000)


class Picture(NamedTuple):
    """One stored frame: its time in seconds, or None; its values, (H, W) or (H, W, 3) RGB, of any
    type; or, in the place of values, what is damaged about it."""

    time: float | None
    values: NDArray[Any] | None
    fault: str = ""


@dataclass(frozen=True)
class Damage:
    """Where a clip is damaged: the number and time of the first frame that is not sound."""

    frame: int
    seconds: float
    fault: str

    def text(self) -> str:
        """In words."""
        return f"frame {self.frame} ({self.seconds:.2f} s) {self.fault}"


class Frame(NamedTuple):
    """One frame: its number from 0, its time in seconds from the first frame, its pixels."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    timestamp: float
    image: Image


@dataclass
class Facts:
    """What was read, for people and programs; a reader fills in what it knows.

    Attributes:
        kind: format and codec, "H.264 in mov,mp4" for example.
        bits: of a stored value.
        levels: which values became the levels 0..255, and why; "" where they are these already.
        stored: (width, height) of a frame in the file, upright.
        size: (width, height) of a frame as it is read.
        frames: how many to expect; None where nobody knows before the end.
        fps: frames a second on average, and `rate`, where that is known from.
        aspect: width of a stored pixel / its height.
        colour: whether the file holds colours.
        spacing: (x, y) millimetres from one pixel of a frame to the next; None if not known.
        region: the part that is read, in pixels of the whole frame, and `region_from`, who says so.
        regions: how many ultrasound regions the file names.
        burned_in: whether the file says that it shows who was examined; None if it does not say.
        notes: what was assumed or dropped, or looks wrong.
    """

    kind: str
    bits: int = 8
    levels: str = ""
    stored: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    frames: int | None = None
    fps: float | None = None
    rate: str = ""
    aspect: float = 1.0
    colour: bool = False
    spacing: tuple[float, float] | None = None
    region: Crop | None = None
    region_from: str = ""
    regions: int = 0
    burned_in: bool | None = None
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """All of it but the notes in one line."""
        said = [self.kind, f"{self.size[0]}x{self.size[1]} pixels"]
        if self.region is not None:
            x, y, w, h = self.region
            wide, high = self.stored
            said.append(f"region {x},{y},{w},{h} of {wide}x{high} ({self.region_from})")
        if self.aspect != 1:
            said.append(f"pixels of {self.aspect:.3g}:1 made square")
        if self.spacing is not None:
            said.append("{:.4g} x {:.4g} mm a pixel".format(*self.spacing))
        said.append(f"{self.bits} bits, {'colour' if self.colour else 'grey'}")
        if self.levels:
            said.append(self.levels)
        if self.frames != 1:
            said.append(f"{self.frames if self.frames is not None else 'some'} frames")
            said.append(f"{self.fps:.4g} a second ({self.rate})" if self.fps else self.rate)
        return ", ".join(filter(None, said))
