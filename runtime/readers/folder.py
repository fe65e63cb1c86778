"""Folders of pictures as clips: which of the files are frames, in which order, at which times.

A folder often holds more than its frames: masks beside them, a logo, two recordings. One series is
read: the largest group of names that differ in a number alone. What is left out is said.
"""

from __future__ import annotations

import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from ..support.errors import InputError, UnsupportedFormat
from ..support.table import number, read_table, spelling_hint
from .file_headers import DICOM, IMAGE, VIDEO, kind_by_name, kind_of
from .reading import Facts, Picture, Reading, mean_rate
from .source import DEFAULT_FPS, FrameSource
from .stills import adopt, read_pages, size_and_pages

TIMES = "frames.csv"
"""A table beside the frames: frame (a file's name), seconds."""


_UNEVEN = "its numbers are uneven: they give the order alone, not the times"
_MASKS = re.compile(r"mask|label|seg|annot|(^|[^a-z])gt([^a-z]|$)", re.IGNORECASE)
"""What files of labels are called."""


@dataclass(frozen=True)
class Series:
    """Frames of a folder in order.

    Attributes:
        files: the frames.
        pattern: their names, "#" for the number.
        numbers: the frames' numbers, from 0 in steps of one; None where names are not numbered
            evenly.
        seconds: their times; None where there is no table of them.
        notes: what was left out or looks wrong.
    """

    files: list[Path]
    pattern: str
    numbers: list[int] | None
    seconds: list[float] | None
    notes: list[str]


class FolderSource(FrameSource):
    """The pictures of a folder."""

    counts = True

    def __init__(self, path: Path, how: Reading, channels: int) -> None:
        self._series = series = series_of(path)
        self.count_hint = len(series.files)
        self._told: set[str] = set()  # what is said once, though many files have it
        facts = Facts(f"folder of {series.pattern}", colour=True)
        if series.seconds:
            rate = mean_rate(series.seconds)
            self.stated = (rate, TIMES) if rate else None
        super().__init__(path, how, channels, facts)
        for text in series.notes:
            if how.timed or text != _UNEVEN:
                self.note(text)

    def _pictures(self, channels: int) -> Iterator[Picture]:
        series = self._series
        rate = float(self.how.fps or DEFAULT_FPS)
        for place, file in enumerate(series.files):
            time: float | None = place / rate if self.how.fps else None
            if series.seconds is not None and self.how.fps is None:
                time = series.seconds[place]
            elif series.numbers is not None:
                time = series.numbers[place] / rate
            try:
                page = next(read_pages(file))
            except InputError as error:
                yield Picture(time, None, f"cannot be read: {error.message}")
                continue
            self.facts.kind = f"folder of {series.pattern} ({page.kind})"
            adopt(self, page)
            if page.pages > 1:
                self.note("its files have several pages: the first of each is read")
            for text in page.notes:
                if text not in self._told:
                    self._told.add(text)
                    self.note(f"{file.name}, the first of perhaps several: {text}")
            yield Picture(time, page.values)


def series_of(folder: Path) -> Series:
    """The frames of a folder.

    Raises:
        InputError: it holds none, or its table of times has a fault.
        UnsupportedFormat: it holds files of a format that is not read from folders.
        OSError: it cannot be listed.
    """
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    kinds = {file: kind_by_name(file) for file in files}
    if IMAGE not in kinds.values():
        bare = [file for file in files if not file.suffix and file.is_file()]
        kinds.update({file: DICOM for file in bare if kind_of(file) == DICOM})
    images = sorted(
        (file for file in files if kinds[file] == IMAGE and file.is_file()), key=_natural_order
    )
    others = sorted(file for file in files if kinds[file] not in (None, IMAGE))
    if len(images) == 1 and others:
        raise InputError(
            f"the folder {folder} holds one picture beside {others[0].name}",
            f"name the one that is meant: {images[0]} or {others[0]}",
        )
    if images:
        table = folder / TIMES
        series = _of_table(table, images) if table.is_file() else _of_names(images)
        if others:
            left = _some([file.name for file in others])
            series.notes.append(f"only its pictures are read; left out: {left}")
        return _of_one_size(series)
    for file, kind in sorted(kinds.items()):
        if kind is not None and kind not in (IMAGE, VIDEO):
            raise UnsupportedFormat(
                f"the folder {folder} holds {kind} files, which are not joined to a clip",
                f"name one of them, for example {file}",
            )
    hint = "frames are .png, .jpg, .bmp, .tif, .webp, .jp2 or .pgm files"
    if videos := [file for file in files if kinds[file] == VIDEO]:
        hint = f"name one of its videos, for example {min(videos)}"
    raise InputError(f"the folder {folder} holds no frames", hint)


def _of_table(table: Path, images: Sequence[Path]) -> Series:
    there = {file.name: file for file in images}
    files: list[Path] = []
    seconds: list[float] = []
    for line, row in read_table(table, ("frame", "seconds")):
        where, name = f"{table}:{line}", row["frame"]
        if name not in there:
            raise InputError(f"{where}: there is no frame {name!r}", spelling_hint(name, there))
        files.append(there[name])
        hint = "seconds are numbers with a point, such as 0.04"
        seconds.append(number(where, "seconds", row["seconds"], hint))
        if len(seconds) > 1 and seconds[-1] <= seconds[-2]:
            fault = f"{where}: {seconds[-1]:g} s does not come after {seconds[-2]:g} s"
            raise InputError(fault, "times increase from frame to frame")
    if not files:
        raise InputError(f"{table}: names no frame", "add a row per frame, or remove the table")
    rest = sorted(there.keys() - {file.name for file in files})
    notes = [f"not in {TIMES} and left out: {_some(rest)}"] if rest else []
    return Series(files, f"{len(files)} pictures named by {TIMES}", None, seconds, notes)


def _of_names(images: Sequence[Path]) -> Series:
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in images:
        groups[re.sub(r"[0-9]+", "#", file.name)].append(file)
    parts = [part for group in groups.values() for part in _split(group)]
    # The largest; of equal ones that which is not called a mask, and the shortest name.
    parts.sort(
        key=lambda files: (
            -len(files), bool(_MASKS.search(files[0].name)), len(files[0].name),
            _natural_order(files[0]),
        )
    )  # fmt: skip
    if len(parts[0]) == 1:  # nothing is numbered
        notes = ["the names are not numbered: taken in the order of the alphabet"]
        return Series(list(images), "pictures", None, None, notes if len(images) > 1 else [])
    files = parts[0]
    pattern, values = _numbering(files)
    notes = []
    own = set(files)
    if rest := [file.name for file in images if file not in own]:
        notes.append(f"only {pattern} is read; left out: {_some(rest)}")
    steps = [after - before for before, after in pairwise(values)]
    step, often = Counter(steps).most_common(1)[0]
    even = min(steps) > 0 and 2 * often >= len(steps) and all(each % step == 0 for each in steps)
    if not even:
        notes.append(_UNEVEN)
        return Series(files, pattern, None, None, notes)
    if gaps := [place for place, each in enumerate(steps) if each != step]:
        missing = sum(steps[place] // step - 1 for place in gaps)
        between = f"{files[gaps[0]].name} and {files[gaps[0] + 1].name}"
        notes.append(f"{missing} frames are missing, the first between {between}")
    return Series(files, pattern, [(value - values[0]) // step for value in values], None, notes)


def _split(files: list[Path]) -> list[list[Path]]:
    """One series, or several where another number than the counting one has several values."""
    numbers = [re.findall(r"[0-9]+", file.name) for file in files]
    varying = [i for i, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    if len(varying) < 2:
        return [files]
    # The last number that varies counts; if it leaves most files alone, all count together.
    series: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file, found in zip(files, numbers, strict=True):
        series[tuple(found[: varying[-1]])].append(file)
    return list(series.values()) if 2 * len(series) <= len(files) else [files]


def _numbering(files: Sequence[Path]) -> tuple[str, list[int]]:
    """The names with "#" for the first number that varies; its values, in the order of files."""
    numbers = [re.findall(r"[0-9]+", file.name) for file in files]
    columns = list(zip(*numbers, strict=True))
    column = next((i for i, found in enumerate(columns) if len(set(found)) > 1), 0)
    pieces = re.split(r"([0-9]+)", files[0].name)
    pieces[2 * column + 1] = "#"
    return "".join(pieces), [int(found[column]) for found in numbers]


def _of_one_size(series: Series) -> Series:
    """Without the frames of another size than most have. Only headers are read; what cannot be read
    stays, to be reported as damage."""
    sizes = [_size(file) for file in series.files]
    known = Counter(size for size in sizes if size is not None)
    if len(known) < 2 or 2 * known.most_common(1)[0][1] <= len(sizes):
        return series  # no other size, or none that is the usual one
    usual = known.most_common(1)[0][0]
    kept = [place for place, size in enumerate(sizes) if size in (usual, None)]
    other = [file.name for file, size in zip(series.files, sizes, strict=True)
             if size not in (usual, None)]  # fmt: skip
    note = f"not {usual[0]}x{usual[1]} pixels and left out: {_some(other)}"
    return replace(
        series,
        files=[series.files[place] for place in kept],
        numbers=series.numbers and [series.numbers[place] for place in kept],
        seconds=series.seconds and [series.seconds[place] for place in kept],
        notes=[*series.notes, note],
    )


def _size(file: Path) -> tuple[int, int] | None:
    try:
        with file.open("rb") as opened:
            head = opened.read(24)
    except OSError:
        return None
    if head.startswith(b"\x89PNG") and len(head) == 24:  # Pillow takes twenty times as long
        return struct.unpack(">II", head[16:])
    return size_and_pages(file)[0]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """Sort key that puts frame2 before frame10."""
    pieces = re.split(r"([0-9]+)", path.name.lower())
    numbers = [int(part) if place % 2 else 0 for place, part in enumerate(pieces)]
    return [(place % 2 == 1, numbers[place], part) for place, part in enumerate(pieces)]
