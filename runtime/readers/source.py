"""What every reader of clips has in common: frames one at a time, and what was found about them.

A reader yields pictures as they are stored. `FrameSource` makes frames of them, for all formats
alike: grey levels (`levels.py`), square pixels, the region, the channels asked for, increasing
times; and it says what it assumed and dropped.

Convention: `timestamp` is in seconds from the first frame, which is 0.0, and increases strictly.
Images are uint8, (H, W) for one channel and (H, W, 3) RGB for three, rotated as the file says.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..media.frames import (
    Crop,
    Image,
    crop_image,
    is_coloured,
    resize,
    shows_something,
    to_channels,
)
from ..media.levels import Window, found_window, is_flat, to_levels
from ..media.region import Mask, Region, find_region
from ..support.errors import InputError
from .file_headers import check_size
from .reading import IS_SYNTHETIC, Damage, Facts, Frame, Picture, Reading
from .regions import choose_region, clutter, inside

log = logging.getLogger("sonomime")

#: For sources without timestamps and frame rate.
DEFAULT_FPS = Fraction(30)
MOST_FLAT = 300
"""Deep frames that show nothing are passed over, so many at most."""
LOOK = 8
"""Frames at the beginning that decide the range of deep values, and whether there are colours."""
REGION_LOOK, REGION_STEP = 24, 4
"""Frames that show the region: every fourth of the first 96."""

_SQUARE = 0.01
"""Pixels whose sides differ by a smaller share are called square."""
_MOST_ASPECT = 16


@cache
def warn_once(path: Path, text: str) -> None:
    """Log what was noted about a file, which is often opened several times in one run."""
    log.warning("%s: %s", path, text)


class FrameSource(ABC):
    """Frames of one size in order, read as they are asked for; each iteration begins again.

    Attributes:
        path: where they come from.
        how: how they are read.
        facts: what was found; its notes can grow during an iteration.
        fps: the average frame rate, as asked or by the file, or None when neither says it.
        size: (width, height) of every frame, after rotation, made square, and crop.
        crop: the part that is read, in pixels of the whole frame; None: all.
        count_hint: how many frames to expect, or None; only a hint.
        damage: where the last iteration met damage first; None: nowhere.
    """

    fps: Fraction | None = None
    count_hint: int | None = None
    damage: Damage | None = None
    #: Frames a second by the file, and where in it that stands; None where it does not say.
    stated: tuple[Fraction, str] | None = None
    aspect: float = 1.0  # of a stored pixel, as the frame is displayed
    #: Whether it reckons times by `how.fps` itself, since frames may be missing.
    counts: bool = False
    #: What the file says about its values: the window, and why; else at least so many bits.
    declared: tuple[Window, str] | None = None
    least_bits: int = 1
    #: Whether the decoder brings values to 16 bits.
    scaled: bool = False
    #: Whether small values are white.
    inverted: bool = False
    #: The ultrasound region that the file names, in stored pixels.
    named_region: Crop | None = None

    def __init__(self, path: Path, how: Reading, channels: int, facts: Facts) -> None:
        self.path, self.how, self.facts = path, how, facts
        self._channels = channels
        self._window: Window | None = None
        self._found: Region | None = None
        self._mask: Mask | None = None
        self._guessed = False  # the window is that of the first frames
        self._announced = False
        self.crop: Crop | None = None
        self._look()

    @abstractmethod
    def _pictures(self, channels: int) -> Iterator[Picture]:
        """Every stored frame, upright. Colours may be left out where `channels` is 1. After damage
        that it cannot pass, it ends with a picture that says so."""

    # -- what it is --------------------------------------------------------------------------------

    def _look(self) -> None:
        """Find out what the frames have in common from the first ones."""
        facts, how = self.facts, self.how
        seen = list(self._first(1 if self._channels == 1 else 3, 1, 1))
        first = seen[0]
        self._type = first.dtype
        if first.dtype != np.uint8:
            seen = list(self._first(3, LOOK, 1, flat=False))
        self._choose_window(seen)
        height, width = first.shape[:2]
        if facts.spacing is not None and abs(facts.spacing[0] / facts.spacing[1] - 1) > _SQUARE:
            self.aspect = facts.spacing[0] / facts.spacing[1]
        self._stored = width, height
        if not 1 / _MOST_ASPECT <= self.aspect <= _MOST_ASPECT:
            self.note(f"pixels {self.aspect:.3g} times as wide as high: taken as square")
            self.aspect = 1.0
        if abs(self.aspect - 1) > _SQUARE:
            facts.aspect = self.aspect
            wide, high = max(1.0, self.aspect), max(1.0, 1 / self.aspect)
            self._square: tuple[int, int] | None = round(width * wide), round(height * high)
            check_size(f"{self.path} with square pixels", *self._square)
            if facts.spacing is not None:
                facts.spacing = min(facts.spacing), min(facts.spacing)
        else:
            self._square = None
        facts.stored = self.size = self._square or self._stored
        facts.region, facts.region_from, outline = choose_region(self, self._stored)
        self.crop, self._mask = facts.region, None
        if how.mask and facts.region is not None:
            self.crop, self._mask = None, inside(facts.region, outline, self.size)
        elif self.crop is not None:
            check_size(f"the crop of {self.path}", self.crop.w, self.crop.h)
            self.size = self.crop.w, self.crop.h
        facts.size = self.size
        facts.frames = self.count_hint
        if how.fps is not None:
            self.fps, facts.rate = how.fps, "as asked"
        elif self.stated is not None:
            self.fps, facts.rate = self.stated
        elif self.count_hint != 1 and how.timed and (second := self._second()) is not None:
            if second.time is None or self.counts:
                facts.rate, facts.fps = "assumed", float(DEFAULT_FPS)
                self.note(f"no frame rate is stored: {DEFAULT_FPS} a second assumed; give --fps")
            else:
                facts.rate = "its own times"
        if self.fps is not None:
            facts.fps = float(self.fps)
        if not any(shows_something(self._made(values)) for values in seen):
            self.note("the first frame is black or of one level")
        self._look_for_colour()

    def _first(
        self, channels: int, count: int, step: int, flat: bool = True
    ) -> Iterator[NDArray[Any]]:
        """Values of some of the first frames, at least of one; without flat ones, if others come
        soon."""
        seen, fault = 0, ""
        first, dull = None, list[NDArray[Any]]()
        for index, (_, values, damage) in enumerate(self._pictures(channels)):
            if values is not None and first is not None:
                damage = self._unlike(values, first.shape, first.dtype)
            if values is None or damage:
                fault = fault or damage
                if self.how.on_damage != "skip":
                    break
                continue
            first = values if first is None else first
            if not flat and index < MOST_FLAT and is_flat(values):
                dull += [values] if len(dull) < count else []
            elif not seen or index % step == 0:
                yield values
                seen += 1
                if seen == count:
                    return
        if not seen and dull:
            yield from dull
        elif not seen:
            what = f"its first frame {fault}" if fault else "it has no frames"
            skip = "; --on-damage skip looks for a sound frame" if fault else ""
            hint = f"check that it plays; it may be damaged or cut off{skip}"
            raise InputError(f"{self.path}: {what}", hint)

    @staticmethod
    def _unlike(values: NDArray[Any], shape: tuple[int, ...], kind: np.dtype[Any]) -> str:
        """In what a frame differs from the first one, "" if in nothing that matters."""
        if values.shape[:2] != shape[:2]:
            return "is {} x {} pixels, not {} x {}".format(*values.shape[1::-1], *shape[1::-1])
        return "" if values.dtype == kind else f"has values of {values.dtype}, not of {kind}"

    def _second(self) -> Picture | None:
        return next(islice(self._pictures(1), 1, 2), None)

    def _choose_window(self, seen: list[NDArray[Any]]) -> None:
        facts = self.facts
        if self.how.window is not None:
            self._window, why = self.how.window, "as asked"
        elif self.declared is not None:
            self._window, why = self.declared
        else:
            self._window, why = found_window(seen, self.least_bits), "found"
            self._guessed = self._window not in (None, (0, 65535))
            if self._window is not None and self._guessed:
                low, high = self._window
                by = "the picture" if len(seen) == 1 else f"the first {len(seen)} frames"
                self.note(
                    f"values from {low:.6g} to {high:.6g} are taken as black to white, judged by "
                    f"{by}; set others with {self.how.option}window LOW,HIGH"
                )
        if self.inverted:
            why = "as the file says" if self._window is None else why
            self._window = (self._window or Window(0, 255)).inverted()
        if self.how.window is not None and seen[0].dtype == np.uint8 and self.how.window.high > 255:
            self.note("its values have 8 bits, 0 to 255: the window reaches beyond them")
        if self.how.window is not None and self.scaled:
            self.note(
                "its values are brought to 0..65535 when they are read: the window is of these"
            )
        if self._window is not None:
            low, high = self._window
            facts.levels = f"values from {low:.6g} to {high:.6g} are black to white ({why})"

    def find_region(self) -> Region:
        """The ultrasound picture in the whole frame, judged by the first frames."""
        if self._found is None:
            # One at a time: whole frames can be large.
            seen = self._first(self._channels, REGION_LOOK, REGION_STEP)
            self._found = find_region(self._made(values) for values in seen)
        return self._found

    def warn_of_clutter(self) -> None:
        """Note it if it shows more than ultrasound, and no region was chosen."""
        if self.facts.region is None and (text := clutter(self, self.find_region())):
            self.note(text)

    def _look_for_colour(self) -> None:
        """Whether there are colours where the file can hold some; say so if grey is asked for."""
        if not self.facts.colour:
            return
        channels, self._channels = self._channels, 3
        try:
            self.facts.colour = any(
                is_coloured(self._frame(each)) for each in self._first(3, LOOK, 1)
            )
        finally:
            self._channels = channels
        if self.facts.colour and channels == 1:
            self.note("its colours (Doppler?) are read as grey levels")

    def note(self, text: str, harmless: bool = False) -> None:
        """Something was assumed or dropped; or, if it is harmless, is worth to be known.

        Raises:
            InputError: reading is strict, and it is not harmless.
        """
        if self.how.strict and not harmless and text != IS_SYNTHETIC:
            hint = "leave out --strict to go on with it"
            raise InputError(f"{self.path}: {text}", hint)
        if text not in self.facts.notes:
            self.facts.notes.append(text)
            if self._announced:
                warn_once(self.path, text)

    def announce(self, say: Callable[[str], object] = lambda line: None) -> None:
        """Say in a line what is read, and log what was noted; later notes are logged at once."""
        say(f"{self.path}: {self.facts.line()}")
        self._announced = True
        for text in self.facts.notes:
            warn_once(self.path, text)

    # -- frames ------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self, whole: bool = False) -> Iterator[Frame]:
        """All frames from the beginning; `whole`: not cut, though a crop is asked for."""
        step = float(1 / (self.fps or DEFAULT_FPS))
        origin, last = None, -step
        self.damage = None
        for index, (time, values, fault) in enumerate(self._pictures(self._channels)):
            if self.how.fps is not None and not self.counts:
                time = index * step
            if values is not None:
                fault = self._unlike(values, self._stored[::-1], self._type)
            timestamp = last + step if time is None else time - (origin or 0.0)
            if fault:
                seconds = 0.0 if origin is None else max(0.0, timestamp)
                self._damaged(Damage(index, seconds, fault))
                if self.how.on_damage == "keep":
                    return
                if origin is not None:
                    last = max(last, timestamp)
                continue
            assert values is not None
            if origin is None:
                origin = time or 0.0
                timestamp = 0.0
            if timestamp <= last:  # damaged or repeated times: the clock must go on
                timestamp = last + step
            last = timestamp
            if self._guessed and self._window is not None:
                low, high = sorted(self._window)
                known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
                if known.size and (known.min() < low or known.max() > high):
                    self.note("later frames have values beyond those, which are cut there")
            yield Frame(index, timestamp, self._frame(values, whole))

    def _damaged(self, damage: Damage) -> None:
        what = damage.text()
        if self.how.on_damage == "stop":
            hint = "--on-damage keep takes what comes before, skip leaves such frames out"
            raise InputError(f"{self.path}: {what}", hint)
        if self.damage is None:
            self.damage = damage
            keep = self.how.on_damage == "keep"
            rest = "such frames are left out"
            if keep:
                rest = "the frames before it are kept; --on-damage skip goes on after it"
            self.note(f"{what}; {rest}")

    def _frame(self, values: NDArray[Any], whole: bool = False) -> Image:
        image = self._made(values)
        if self._mask is not None:
            image = np.where(self._mask if image.ndim == 2 else self._mask[..., None], image, 0)
        if self.crop is not None and not whole:
            image = crop_image(image, self.crop)
        return np.ascontiguousarray(image, np.uint8)

    def _made(self, values: NDArray[Any]) -> Image:
        """Grey levels of square pixels, of the whole frame."""
        image = to_channels(to_levels(values, self._window), self._channels)
        return image if self._square is None else resize(image, *self._square)
