"""Which clip and frame of a dataset folder an annotation file means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from ...runtime.readers.open_source import open_source
from ...runtime.readers.reading import Reading
from ...runtime.support.errors import InputError
from ...runtime.support.table import spelling_hint
from ..data.dataset import Clip, frame_files
from .marks import Mark


class Facts(NamedTuple):
    """What a clip is.

    Attributes:
        frames: how many it has.
        size: (width, height) of the original frame.
        spacing: (x, y) millimetres a pixel; None: it does not say.
        stretched: whether its pixels are not square as they are stored.
    """

    frames: int
    size: tuple[int, int]
    spacing: tuple[float, float] | None
    stretched: bool


class Clips:
    """The clips of a folder, by what a tool may call them."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = {clip.name: clip for clip in clips}
        self._files = {clip.name: frame_files(clip) for clip in clips}
        #: Index of a frame in a folder, by its file's name, and by that without the ending.
        self._places: dict[str, dict[str, int]] = {}
        self._holders: dict[str, list[str]] = {}  # clips that have a file of that name
        for name, files in self._files.items():
            stems = Counter(PurePosixPath(file).stem for file in files or ())
            by_stem = {
                stem: i for i, file in enumerate(files or ())
                if stems[stem := PurePosixPath(file).stem] == 1
            }  # fmt: skip
            self._places[name] = by_stem | {file: i for i, file in enumerate(files or ())}
            for file in files or ():
                self._holders.setdefault(file, []).append(name)
        self._facts: dict[str, Facts] = {}
        self._found: dict[str, Clip | None] = {}

    def place(self, mark: Mark, asked: str | None, say: Callable[[str], object]) -> tuple[str, int]:
        """A mark's clip by name, and its frame's index, which the clip may not have.

        Args:
            asked: the clip that the user names.
            say: takes what is assumed.

        Raises:
            InputError: no clip or frame is called so, or several are.
        """
        clip = self._clip(mark, asked, say)
        files, frame = self._files[clip.name], mark.frame
        if isinstance(frame, int):
            return clip.name, frame
        if frame in self._places[clip.name]:
            return clip.name, self._places[clip.name][frame]
        if frame.isascii() and frame.isdigit() and len(frame) < 10:
            return clip.name, int(frame)
        number = re.search(r"([0-9]{1,9})\D*$", PurePosixPath(frame).stem)
        if files is not None or number is None:
            known = spelling_hint(frame, files or ())
            hint = known if files else "frames of a video are counted from 0"
            raise InputError(f"{mark.where}: {clip.name} has no frame {frame[:80]!r}", hint)
        say(f"frames of {clip.name} are the numbers in the file names, counted from 0")
        return clip.name, int(number[1])

    def frame(self, clip: str, index: int) -> str:
        """What the table calls a frame."""
        files = self._files[clip]
        return str(index) if files is None else files[index]

    def index(self, clip: str, frame: str) -> int:
        """The index of a frame that the table names; -1 where the clip has no reader."""
        if clip not in self._files:
            return -1
        return int(frame) if self._files[clip] is None else self._places[clip][frame]

    def facts(self, name: str) -> Facts:
        """Read a clip once, for what it is.

        Raises:
            InputError: it cannot be read.
        """
        if name not in self._facts:
            source = open_source(self._clips[name].path, Reading(timed=False), announce=False)
            count = sum(1 for _ in source)
            about = source.facts
            self._facts[name] = Facts(count, about.stored, about.spacing, about.aspect != 1)
        return self._facts[name]

    def _clip(self, mark: Mark, asked: str | None, say: Callable[[str], object]) -> Clip:
        wanted = asked or mark.video or None
        if wanted is not None:
            found = self._called(wanted, mark.where)
            if found is not None:
                if found.name != wanted:
                    say(f"{wanted} is taken to be the clip {found.name}")
                return found
        if asked is None and isinstance(mark.frame, str):
            holders = self._holders.get(mark.frame, ())
            if len(holders) == 1:
                say(f"pictures are those of that name in the folder {holders[0]}")
                return self._clips[holders[0]]
        if wanted is not None:
            hint = f"--video NAME says which clip it is of; {spelling_hint(wanted, self._clips)}"
            raise InputError(f"{mark.where}: there is no clip {wanted[:80]!r}", hint)
        if len(self._clips) == 1:
            (clip,) = self._clips.values()
            say(f"the file does not name its clip: the only one is {clip.name}")
            return clip
        known = spelling_hint("", self._clips)
        raise InputError(f"{mark.where}: it does not say which clip it is of", f"--video; {known}")

    def _called(self, wanted: str, where: str) -> Clip | None:
        """The clip of that name, or whose file has that name, or has it but for the ending."""
        if wanted not in self._found:
            path = PurePosixPath(wanted.replace("\\", "/"))
            ways: tuple[Callable[[PurePosixPath], object], ...] = (
                lambda name: name == path,
                lambda name: name.name == path.name,
                lambda name: _stem(name.name) == path.name,
                lambda name: _stem(name.name) == _stem(path.name),
            )
            found: list[Clip] = []
            for fits in ways:
                found = [c for c in self._clips.values() if fits(PurePosixPath(c.name))]
                if found:
                    break
            if len(found) > 1:
                names = ", ".join(clip.name for clip in found[:3])
                fault = f"{where}: {wanted[:80]!r} could be {len(found)} clips ({names})"
                raise InputError(fault, "--video NAME says which one")
            self._found[wanted] = found[0] if found else None
        return self._found[wanted]


def _stem(name: str) -> str:
    """Without the ending, unless what follows the dot is part of the name."""
    return re.sub(r"(?<=.)\.[A-Za-z0-9]{1,5}$", "", name)
