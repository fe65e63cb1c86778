"""Arrays of numbers in files, as clips: what MetaImage and NRRD files have in common.

A header says how the values lie; they are read, or unpacked, one frame at a time. Nothing that a
header says is believed before it was compared with limits and with the length of the files.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..media.frames import over_black
from ..media.mark import SYNTHETIC
from ..support.errors import InputError, UnsupportedFormat
from .data_files import Part, Unpacked, bytes_left, open_part
from .file_headers import MAX_PIXELS, check_size
from .reading import IS_SYNTHETIC, Facts, Picture, Reading, mean_rate
from .source import FrameSource

MAX_HEADER = 32 << 20
"""Bytes. A tracked frame takes some 1,200 of them."""
_MAX_FRAME = MAX_PIXELS * 4
_MAX_WHOLE = 1 << 30
_MAX_RATIO = 1032  # no deflated byte becomes more
_MAX_AXES = 16  # as NRRD files have


@dataclass
class Stack:
    """What a header says.

    Attributes:
        path: the header's file.
        kind: the format.
        dtype: of a stored value.
        sizes: of the array; values that are neighbours in the file differ in the first axis.
        colour, time: which of the axes these are; None: there is none, or (time) any.
        parts: the files with the values; all have as many frames.
        packed: each is a zlib or gzip stream.
        fields: all texts of the header, by key; the times of frames are among them.
        spacing: (x, y) millimetres from pixel to pixel; None if not known.
        seconds: times of all frames; None where they are not known.
        upside_down, sideways: how the picture lies; sideways ones have their columns as rows.
        left_out: numbers of frames that are said to hold no picture.
        notes: what was assumed or dropped.
    """

    path: Path
    kind: str
    dtype: np.dtype[Any]
    sizes: Sequence[int]
    colour: int | None
    time: int | None
    parts: list[Part]
    packed: bool
    fields: Mapping[str, str]
    spacing: tuple[float, float] | None = None
    seconds: Sequence[float] | None = None
    upside_down: bool = False
    sideways: bool = False
    left_out: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the axes.

        Raises:
            InputError: sizes that make no picture, or one that is too large.
            UnsupportedFormat: more axes than a clip has.
        """
        sizes, path = self.sizes, self.path
        if not sizes or min(sizes) < 1 or len(sizes) > _MAX_AXES:
            hint = "the header is damaged: copy the file again"
            raise InputError(f"{path}: its sizes are {_listed(sizes):.60}", hint)
        space = [axis for axis in range(len(sizes)) if axis not in (self.colour, self.time)]
        long = [axis for axis in space[2:] if sizes[axis] > 1]
        if self.time is None and len(long) == 1:
            self.time = long.pop()
            timed = any(key.startswith("Seq_Frame") for key in self.fields)
            if not timed and "list" not in str(self.fields.get("Kinds", "")):
                count = sizes[self.time]
                self.notes.append(f"it may be a volume: its {count} slices are read one by one")
        if len(space) < 2 or long:
            raise UnsupportedFormat(
                f"{path} is an array of {_listed(sizes)}, which is no clip of flat pictures",
                "save one slice over time, or one volume, whose slices are then the frames",
            )
        self.across, self.down = space[:2]
        self.colours = 1 if self.colour is None else sizes[self.colour]
        if self.colours not in (1, 3, 4):
            hint = "grey, RGB and RGBA are read"
            raise UnsupportedFormat(f"{path} has {self.colours} values for each pixel", hint)
        width, height = sizes[self.across], sizes[self.down]
        check_size(path, width, height)
        self.frames = 1 if self.time is None else sizes[self.time]
        self.frame_bytes = width * height * self.colours * self.dtype.itemsize
        if self.frame_bytes > _MAX_FRAME:
            hint = f"at most {_MAX_FRAME >> 20} MiB a frame are read: scale it down"
            raise InputError(f"a frame of {path} has {self.frame_bytes >> 20} MiB", hint)
        if self.frames % len(self.parts):
            fault = f"{path}: {self.frames} frames do not fill {len(self.parts)} files evenly"
            raise InputError(fault, "check the sizes, and the list of files")


def millimetres(spacing: Sequence[float]) -> tuple[float, float] | None:
    """(x, y), or None where both are 1: that is what programs write that do not know."""
    if len(spacing) < 2:
        return None
    x, y = spacing[:2]
    if not all(math.isfinite(each) and 1e-6 < each < 1e6 for each in (x, y)):
        return None
    return None if x == y == 1 else (x, y)


class _Block(NamedTuple):
    number: int
    values: NDArray[Any] | None
    fault: str = ""


class StackSource(FrameSource):
    """The frames of an array, upright."""

    def __init__(self, stack: Stack, how: Reading, channels: int) -> None:
        self._stack = stack
        self._array: NDArray[Any] | None = None
        facts = Facts(stack.kind, 8 * stack.dtype.itemsize, colour=stack.colours > 1)
        facts.spacing = stack.spacing[::-1] if stack.spacing and stack.sideways else stack.spacing
        self._read_fields()
        files = [part.path for part in stack.parts]
        length = sum(file.stat().st_size for file in files if file.is_file())
        most = length * (_MAX_RATIO if stack.packed else 1) // stack.frame_bytes
        self.count_hint = max(1, min(stack.frames, most) - len(stack.left_out))
        times = [self._times[number] for number in sorted(self._times)]
        if times and (rate := mean_rate(times)) is not None:
            self.stated = rate, "from the file"
        if stack.fields.get("Title") == SYNTHETIC:
            stack.notes.append(IS_SYNTHETIC)
        super().__init__(stack.path, how, channels, facts)
        for text in stack.notes:
            self.note(text)

    def _read_fields(self) -> None:
        """Times, and which frames hold no picture, from what PLUS and SlicerIGT write."""
        stack = self._stack
        said: dict[int, float] = dict(enumerate(stack.seconds or ()))
        for key, text in stack.fields.items():
            found = re.fullmatch(r"Seq_Frame(\d{1,9})_(Timestamp|ImageStatus)", key)
            if found is None or (number := int(found[1])) >= stack.frames:
                continue
            if found[2] == "ImageStatus":
                if text.strip().upper() == "INVALID":
                    stack.left_out.add(number)
            else:
                try:
                    said[number] = float(text)
                except ValueError:
                    said[number] = math.nan
        times = {
            number: time
            for number, time in sorted(said.items())
            if number not in stack.left_out and math.isfinite(time)
        }
        if stack.left_out:
            stack.notes.append(f"frames marked as invalid are left out: {len(stack.left_out)}")
        if said and len(times) < stack.frames - len(stack.left_out):
            stack.notes.append("some of its frames have no valid time: its times are not used")
            times = {}
        order = list(times.values())
        if late := sum(after <= before for before, after in pairwise(order)):
            stack.notes.append(f"frames whose time is not after the one before: {late}, moved")
        self._times = times

    def _pictures(self, channels: int) -> Iterator[Picture]:
        stack = self._stack
        in_order = stack.time is None or set(stack.sizes[stack.time + 1 :]) <= {1}
        for number, values, fault in self._in_order() if in_order else self._by_pixels():
            if number not in stack.left_out:
                time = self._times.get(number)
                yield Picture(time, None if values is None else self._upright(values), fault)

    def _upright(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values of a frame, of all axes but time: (H, W) or (H, W, 3)."""
        stack = self._stack
        axes = [axis for axis in reversed(range(len(stack.sizes))) if axis != stack.time]
        order = [stack.down, stack.across, *([] if stack.colour is None else [stack.colour])]
        order += [axis for axis in axes if axis not in order]
        values = values.reshape([stack.sizes[axis] for axis in axes])
        values = values.transpose([axes.index(axis) for axis in order])
        values = values.reshape(values.shape[: 2 if stack.colours == 1 else 3])
        values = values.swapaxes(0, 1) if stack.sideways else values
        values = values[::-1] if stack.upside_down else values
        values = np.ascontiguousarray(values, stack.dtype.newbyteorder("="))
        if stack.colours == 4 and values.dtype in (np.uint8, np.uint16):
            values = over_black(values)
        elif stack.colours == 4:
            values = values[..., :3]
            self.note("its transparency is left out")
        return values

    def _in_order(self) -> Iterator[_Block]:
        """Frames that lie one after the other."""
        stack, size = self._stack, self._stack.frame_bytes
        each = stack.frames // len(stack.parts)
        for first, part in zip(range(0, stack.frames, each), stack.parts, strict=True):
            number = first
            try:
                with open_part(part, each * size) as file:
                    read = Unpacked(file).read if stack.packed else file.read
                    for number in range(first, first + each):
                        block = read(size) if stack.packed or bytes_left(file) >= size else b""
                        if len(block) < size:
                            raise OSError("it is cut off")
                        yield _Block(number, np.frombuffer(block, stack.dtype))
                    number += 1  # what comes now is no part of a frame, but may show damage
                    if read(1):
                        self.note(f"{part.path.name} holds more than its header says")
            except (OSError, zlib.error) as error:
                yield _Block(number, None, _unreadable(part, error))

    def _by_pixels(self) -> Iterator[_Block]:
        """The same where the values of each pixel over time lie together."""
        stack = self._stack
        assert stack.time is not None
        if self._array is None:
            try:
                self._array = self._all().reshape(stack.sizes[::-1])
            except (OSError, zlib.error) as error:
                yield _Block(0, None, _unreadable(stack.parts[0], error))
                return
        for number in range(stack.frames):
            axis = len(stack.sizes) - 1 - stack.time
            yield _Block(number, np.take(self._array, number, axis))

    def _all(self) -> NDArray[Any]:
        stack = self._stack
        part, size = stack.parts[0], stack.frame_bytes * stack.frames
        if len(stack.parts) > 1 or (size > _MAX_WHOLE and stack.packed):
            fault = f"{stack.path} has {size >> 20} MiB, with the values of each pixel together"
            raise InputError(fault, "save it with the time as last axis, as 3D Slicer 5.10 does")
        with open_part(part, size) as file:
            if stack.packed:
                values = np.frombuffer(Unpacked(file).read(size), np.uint8)
            elif bytes_left(file) >= size:
                values = np.memmap(file, np.uint8, "r", file.tell(), (size,))
            else:
                values = np.empty(0, np.uint8)
        if values.size < size:
            raise OSError("it is cut off")
        return values.view(stack.dtype)


def _unreadable(part: Part, error: Exception) -> str:
    return f"cannot be read from {part.path.name}: {getattr(error, 'strerror', None) or error}"


def _listed(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) or "missing"
