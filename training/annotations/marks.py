"""What an annotation file holds, whatever its format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...runtime.support.errors import InputError

MOST_BYTES = 64 << 20  # of a file
MOST_MARKS = 2_000_000


class Mark(NamedTuple):
    """A labelled point of a frame."""

    where: str  # in words, file included: "a.xml:12"
    video: str | None  # what the file calls its clip; None: it does not say
    frame: int | str  # from 0, or a name
    name: str
    x: float
    y: float
    visible: bool = True
    size: tuple[int, int] | None = None  # (width, height) of the frame, if the file says so


@dataclass
class Marks:
    """All points of a file.

    Attributes:
        corner: whether 0 is the outer corner of the first pixel; else it is that pixel's centre.
        millimetres: whether x and y are millimetres from there, not pixels.
        left_out: what was not taken, with how often it was there.
        notes: what was assumed.
    """

    corner: bool
    millimetres: bool = False
    marks: list[Mark] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, mark: Mark) -> None:
        """Take a mark.

        Raises:
            InputError: there are too many.
        """
        if len(self.marks) == MOST_MARKS:
            raise InputError(f"{mark.where}: more than {MOST_MARKS} points", "split the file")
        self.marks.append(mark)


Reader = Callable[[Path, bytes], Marks]


def content(path: Path) -> bytes:
    """The bytes of an annotation file.

    Raises:
        InputError: it cannot be read, is no plain file or too large.
    """
    try:
        if not path.is_file():  # a pipe would hang
            what = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}", "give a file of an annotation tool")
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        fault = f"{path}: cannot be read ({error.strerror or error})"
        raise InputError(fault, "check the path and its permissions") from error
    if len(data) > MOST_BYTES:
        raise InputError(f"{path} is larger than {MOST_BYTES >> 20} MiB", "export it in parts")
    return data
