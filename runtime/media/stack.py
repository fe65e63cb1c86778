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
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..support.errors import InputError, UnsupportedFormat
from .file_headers import MAX_PIXELS, check_size
from .frames import on_black
from .source import Facts, FrameSource, Picture, Reading

MAX_HEADER = 32 << 20
"""Bytes. A tracked frame takes some 1,200 of them."""
_MAX_FRAME = MAX_PIXELS * 4
_MAX_WHOLE = 1 << 30
_MAX_RATIO = 1032  # no deflated byte becomes more
_MAX_AXES = 16  # as NRRD files have
_CHUNK = 1 << 16


class Part(NamedTuple):
    """A file of values, and how many bytes come before them; -1: they end with the file."""

    path: Path
    skip: int


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
            raise InputError(
                f"{path}: its sizes are {_listed(sizes)}", "copy the file again: it is damaged"
            )
        space = [axis for axis in range(len(sizes)) if axis not in (self.colour, self.time)]
        long = [axis for axis in space[2:] if sizes[axis] > 1]
        if self.time is None and len(long) == 1:
            self.time = long.pop()
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


def data_files(path: Path, said: str, lines: Sequence[str], skip: int) -> list[Part]:
    """The files with the values, as a header names them: a name, LIST with the names in the `lines`
    that follow, or a pattern with its first and last number and step ("slice%03d.raw 1 20 1").

    Raises:
        InputError: not such names, or not of files in the header's own folder.
    """
    words = said.split()
    names = [said.strip()]
    if words[:1] == ["LIST"]:
        names = [line.strip() for line in lines if line.strip()]
    elif "%" in said:
        pattern = re.fullmatch(r"([^%]*)%(0?)(\d{0,2})d([^%]*)", " ".join(words[:-3]))
        if pattern is None or not all(re.fullmatch(r"\d{1,6}", word) for word in words[-3:]):
            hint = "it is written like slice%03d.raw 1 20 1: first number, last number, step"
            raise InputError(f"{path}: cannot read the pattern of files {said!r}", hint)
        first, last, step = map(int, words[-3:])
        before, zero, width, after = pattern.groups()
        numbers = range(first, last + 1, max(1, step))
        names = [f"{before}{number:{zero}{width}d}{after}" for number in numbers]
    folder = path.resolve().parent
    for name in names:
        # A header from elsewhere must not make us read, and show, any other file.
        plain = name not in ("", ".", "..") and not re.search(r"[/\\\0]", name)
        if not plain or (folder / name).resolve().parent != folder:
            hint = "the data lie beside the header, under their own names; links out are not used"
            raise InputError(f"{path}: its data file {name!r} is not in the same folder", hint)
    if not names:
        raise InputError(f"{path} names no data file", "it may be cut off: copy it again")
    return [Part(folder / name, skip) for name in names]


def millimetres(spacing: Sequence[float]) -> tuple[float, float] | None:
    """(x, y), or None where both are 1: that is what programs write that do not know."""
    if len(spacing) < 2:
        return None
    x, y = spacing[:2]
    if not all(math.isfinite(each) and 1e-6 < each < 1e6 for each in (x, y)):
        return None
    return None if x == y == 1 else (x, y)


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
        if len(times) > 1 and times[-1] > times[0]:
            rate = Fraction((len(times) - 1) / (times[-1] - times[0]))
            self.fps, facts.rate = rate.limit_denominator(1_000_000), "from the file"
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
            stack.notes.append(f"{len(stack.left_out)} frames without a valid picture are left out")
        if said and len(times) < stack.frames - len(stack.left_out):
            stack.notes.append("some of its frames have no valid time: its times are not used")
            times = {}
        order = list(times.values())
        if late := sum(after <= before for before, after in pairwise(order)):
            stack.notes.append(f"the times of {late} frames do not come after those before: moved")
        self._times = times

    def _pictures(self, channels: int) -> Iterator[Picture]:
        stack = self._stack
        last = stack.time is None or all(size == 1 for size in stack.sizes[stack.time + 1 :])
        for number, block in enumerate(self._blocks() if last else self._slices()):
            if number in stack.left_out:
                continue
            time = self._times.get(number)
            if isinstance(block, str):
                yield Picture(time, None, block)
            else:
                yield Picture(time, self._upright(block))

    def _upright(self, block: NDArray[Any]) -> NDArray[Any]:
        """The values of a frame, of all axes but time: (H, W) or (H, W, 3)."""
        stack = self._stack
        axes = [axis for axis in reversed(range(len(stack.sizes))) if axis != stack.time]
        first = [stack.down, stack.across, *([] if stack.colour is None else [stack.colour])]
        order = first + [axis for axis in axes if axis not in first]
        values = block.reshape([stack.sizes[axis] for axis in axes])
        values = values.transpose([axes.index(axis) for axis in order])
        values = values.reshape(values.shape[: 2 if stack.colours == 1 else 3])
        if stack.sideways:
            values = values.swapaxes(0, 1)
        values = values[::-1] if stack.upside_down else values
        values = np.ascontiguousarray(values, stack.dtype.newbyteorder("="))
        if stack.colours == 4:
            notes: list[str] = []
            values = on_black(values, notes) if values.dtype.kind == "u" else values[..., :3]
            for text in notes or ["its transparency is left out"] * (values.dtype.kind != "u"):
                self.note(text)
        return values

    def _blocks(self) -> Iterator[NDArray[Any] | str]:
        """Frame after frame, for files where they lie one after the other; a text for damage."""
        stack, size = self._stack, self._stack.frame_bytes
        each = stack.frames // len(stack.parts)
        for part in stack.parts:
            try:
                with _opened(part, each * size) as file:
                    read = _Unpacked(file).read if stack.packed else file.read
                    for _ in range(each):
                        block = read(size) if stack.packed or _left(file) >= size else b""
                        if len(block) < size:
                            yield f"is missing: {part.path.name} is cut off"
                            break
                        yield np.frombuffer(block, stack.dtype)
                    else:
                        if read(1):
                            self.note(f"{part.path.name} holds more than its header says")
            except (OSError, zlib.error) as error:
                reason = getattr(error, "strerror", None) or error
                yield f"cannot be read: {part.path.name}: {reason}"

    def _slices(self) -> Iterator[NDArray[Any] | str]:
        """The same for files where the values of a pixel over time lie together."""
        stack = self._stack
        assert stack.time is not None
        shape = stack.sizes[::-1]
        if self._array is None:
            try:
                self._array = self._all().reshape(shape)
            except (OSError, zlib.error) as error:
                yield f"cannot be read: {getattr(error, 'strerror', None) or error}"
                return
        for number in range(stack.frames):
            yield np.take(self._array, number, axis=len(shape) - 1 - stack.time)

    def _all(self) -> NDArray[Any]:
        stack = self._stack
        part, size = stack.parts[0], stack.frame_bytes * stack.frames
        if len(stack.parts) > 1 or (size > _MAX_WHOLE and stack.packed):
            fault = f"{stack.path}: its time axis comes first, and it has {size >> 20} MiB"
            raise InputError(fault, "save it with the time axis last, as 3D Slicer 5.10 does")
        with _opened(part, size) as file:
            start = file.tell()
            if stack.packed:
                most = min(size, _left(file) * _MAX_RATIO)
                values = np.frombuffer(_Unpacked(file).read(most), np.uint8)
            else:
                values = np.memmap(part.path, np.uint8, "r", start, min(size, _left(file)))
        if values.size < size:
            raise zlib.error("the file is cut off")
        return values.view(stack.dtype)


class _Unpacked:
    """A zlib or gzip stream that makes as many bytes as are asked for, and no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rest = file, b""
        self._machine = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def read(self, size: int) -> bytearray:
        made = bytearray()
        while len(made) < size:
            if self._machine.eof:  # a gzip file may have several members
                self._rest = self._machine.unused_data or self._file.read(_CHUNK)
                if not self._rest.startswith(b"\x1f\x8b"):
                    break
                self._machine = zlib.decompressobj(zlib.MAX_WBITS | 32)
            packed = self._rest or self._file.read(_CHUNK)
            new = self._machine.decompress(packed, size - len(made))
            self._rest = self._machine.unconsumed_tail
            if not packed and not new:
                break
            made += new
        return made


def _opened(part: Part, size: int) -> BinaryIO:
    """A file at the first of its `size` bytes of values.

    Raises:
        OSError: it is not there, or too short.
    """
    if not part.path.is_file():
        raise OSError("there is no such file")
    length = part.path.stat().st_size
    skip = length - size if part.skip < 0 else part.skip
    if not 0 <= skip <= length:
        raise OSError("it is cut off")
    file = part.path.open("rb")
    file.seek(skip)
    return file


def _left(file: BinaryIO) -> int:
    at = file.tell()
    end = file.seek(0, 2)
    file.seek(at)
    return end - at


def _listed(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) or "missing"
