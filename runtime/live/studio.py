"""Streams that are started and stopped by a page: a library of files, and one stream at a time."""

from __future__ import annotations

import logging
import math
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..animator import Animator
from ..bundle.bundle import Bundle
from ..options import SHARES
from ..readers.open_source import open_source
from ..readers.reading import AS_IS
from ..still import SAMPLES
from ..support.errors import ConfigError, InputError, OutputError, SonomimeError, output_errors
from ..template import Template, shipped
from .control import Control
from .how import How
from .opening import Stills, files_in, open_driving_feed
from .outlets import Outlets, ThreadedOutlet, recorder
from .renderer import AnyRenderer
from .showing import Shown
from .stream import Stream

log = logging.getLogger("sonomime")

MOST_UPLOAD = 64 << 20  # bytes of a file
MOST_UPLOADS = 512 << 20  # bytes of all of them
WAIT = 5.0  # seconds until a recording has begun
_SETTINGS: dict[str, tuple[type, ...]] = {
    "source": (str,), "driving": (str,), "loop": (bool,), "motion": (str,), "scale": (int, float),
    "smooth": (bool,), "shading": (str,), "size": (str,),
}  # fmt: skip
_DEFAULTS = {
    "loop": True, "motion": "relative", "scale": 1.0, "smooth": False, "shading": "full",
    "size": "source",
}  # fmt: skip


class Studio(Control):
    """Sources and driving clips are the files of two folders, the package's samples where none is
    given, and what was uploaded, which is removed at the end."""

    fixed = False

    def __init__(
        self, bundle: Bundle, open_animator: Callable[..., Animator | AnyRenderer],
        sources: Path | None,
        driving: Path | None, recordings: Path, mark: bool = True,
    ) -> None:  # fmt: skip
        """
        Args:
            open_animator: takes `motion`, `scale`, `smooth` and `shading`; as for `Stream`.
            recordings: the folder of what is recorded.
            mark: as of `How`.
        """
        super().__init__(None, None)
        #: Where the frames of all streams go.
        self.outlets = Outlets([])
        self._mark = mark
        self._bundle, self._open = bundle, open_animator
        self._folders = {"source": sources, "driving": driving}
        self._recordings = recordings
        self._uploads = Path(tempfile.mkdtemp(prefix="sonomime-"))
        self._recorder: tuple[str, ThreadedOutlet] | None = None
        self._change = threading.RLock()  # one change at a time

    def close(self) -> None:
        """End the stream, finish its files, remove uploads."""
        with suppress(ConfigError):  # nothing runs
            self.stop()
        self.outlets.close()
        shutil.rmtree(self._uploads, ignore_errors=True)

    def state(self) -> dict[str, Any]:
        recorder = self._recorder
        goes_on = recorder is not None and recorder[1].error is None
        return super().state() | {"recording": recorder[0] if recorder and goes_on else None}

    def library(self) -> dict[str, Any]:
        rows = [
            {"name": name, "title": facts["title"], "seconds": round(facts["seconds"], 1)}
            for name, facts in _templates().items()
        ]
        names = {kind: list(self._files(kind)) for kind in self._folders}
        return {
            "sources": names["source"], "driving": names["driving"], "templates": rows,
            "motions": list(self._bundle.manifest.motions()),
        }  # fmt: skip

    def start(self, wanted: Mapping[str, Any]) -> None:
        """Start a stream; the one before ends.

        Args:
            wanted: `source` and `driving`, names of the library, and `loop`, `motion`, `scale`,
                `smooth`, `shading`, `size`.

        Raises:
            SonomimeError: a setting is wrong or a file cannot be used; then the one before goes on.
        """
        settings = _checked(wanted)
        with self._change:
            chain = self._bundle.manifest
            stills = Stills(lambda: self._files("source"), AS_IS, chain, lambda line: None)
            source = stills.read(settings["source"])
            name, files = settings["driving"], self._files("driving")
            if name not in files and name not in shipped():
                raise InputError(f"there is no driving clip {name!r}", "choose one of the list")
            path = str(files.get(name, name))
            driving = open_driving_feed(
                path, AS_IS, chain, "paced", settings["loop"], "first", lambda line: None
            )
            driving.feed.name = name
            options = {key: settings[key] for key in ("motion", "scale", "smooth", "shading")}
            how = How(settings["size"], mark=self._mark, crop=driving.crop, loop=settings["loop"])
            stream = Stream(
                chain, lambda: self._open(**options), source, driving.feed, driving.template,
                driving.reference, how, stills,
            )  # fmt: skip
            if self.stream is not None:
                self.stop()
            self.stream, self._settings = stream, settings
            stream.start(self.outlets.show, self._ended)

    def _ended(self, last: Shown) -> None:
        """The stream has ended, perhaps by itself: in its thread."""
        self.outlets.end(last)
        try:
            self._finish_recording()
        except SonomimeError as error:
            log.error("the recording: %s", error)

    def stop(self) -> None:
        """End the stream, and what is recorded of it."""
        with self._change:
            if self.stream is None:
                raise ConfigError("nothing runs", "start a stream first")
            self.stream.close()

    def give_order(self, text: str, answer: Callable[[str], None]) -> None:
        """An order of a program, for the stream that runs; see `Stream.order`."""
        self._running().order(text, answer)

    def record(self, name: str | None) -> None:
        """Record from now on, in a file of the folder of recordings; None: finish it.

        Raises:
            ConfigError: a name that cannot be; or another one is being recorded.
            OutputError: there is such a file, or it cannot be written.
        """
        with self._change:
            if name is None:
                self._finish_recording()
                return
            if (before := self.state()["recording"]) is not None:
                raise ConfigError(f"{before} is being recorded", "end that one first")
            self._finish_recording()  # one that has failed
            if not re.fullmatch(r"[\w-][\w .-]{0,99}\.(mp4|mkv)", name):
                hint = "letters, digits and -, ending in .mp4 or .mkv (exact)"
                raise ConfigError(f"a recording cannot be named {name[:100]!r}", hint)
            stream, path = self._running(), self._recordings / name
            with output_errors(path):
                if path.exists():
                    raise OutputError(f"{path} is there already", "give another name")
            outlet = recorder(path, stream.rate, None, waits=False)
            self.outlets.add(outlet)
            stream.drops = stream.drops | {"recording": outlet.dropped}
            self._recorder = name, outlet
            outlet.begun.wait(WAIT)  # until it is known whether it can be written
            if outlet.error is not None:
                self._finish_recording()

    def _finish_recording(self) -> None:
        """Raise what was wrong with it."""
        before, self._recorder = self._recorder, None
        if before is not None:
            self.outlets.remove(before[1])
            if before[1].error is not None:
                raise before[1].error

    def take_upload(self, kind: str, name: str, read: Callable[[int], bytes]) -> None:
        """Take a file into the library.

        Args:
            kind: `source` or `driving`.
            read: gives at most so many bytes more, b"" at the end.

        Raises:
            ConfigError: another kind, a name that cannot be, a file that is too large.
            InputError: it is no picture, clip or template.
        """
        if kind not in self._folders or not re.fullmatch(r"[\w(-][\w .()-]{0,99}", name):
            raise ConfigError(f"cannot take {name[:100]!r} as a {kind[:10]}", "rename the file")
        folder = self._uploads / kind
        there = sum(each.stat().st_size for each in self._uploads.rglob("*") if each.is_file())
        part, size = folder / f".{secrets.token_hex(4)}{Path(name).suffix}", 0
        with output_errors(folder):
            folder.mkdir(exist_ok=True)
            file = part.open("wb")
        try:
            while data := read(1 << 16):
                size += len(data)
                if size > MOST_UPLOAD or size + there > MOST_UPLOADS:
                    most = f"{MOST_UPLOAD >> 20} MB a file, {MOST_UPLOADS >> 20} MB in all"
                    raise ConfigError(f"{name} is too large", f"at most {most}")
                with output_errors(folder):
                    file.write(data)
            with output_errors(folder):
                file.close()
            if kind == "driving" and name.endswith(".npz"):
                Template.load(part)
            else:
                open_source(part, announce=False)  # it is a picture or clip
            part.replace(folder / name)
        finally:
            file.close()
            part.unlink(missing_ok=True)

    def _files(self, kind: str) -> dict[str, Path]:
        """By name; uploads hide files of the same name."""
        folder = self._folders[kind]
        found = _samples(kind) if folder is None else files_in(folder)
        return found | files_in(self._uploads / kind)


def _samples(kind: str) -> dict[str, Path]:
    """The package's own pictures or clips; those that belong together have the same place."""
    names = ("still.png", "lung_still.png") if kind == "source" else ("driving.mp4", "lung.mp4")
    return {name: SAMPLES / name for name in names}


def _templates() -> dict[str, dict[str, Any]]:
    if not _TEMPLATES:
        _TEMPLATES.update({name: Template.load(path).facts() for name, path in shipped().items()})
    return _TEMPLATES


_TEMPLATES: dict[str, dict[str, Any]] = {}


def _checked(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, whole and of the right types."""
    settings = _DEFAULTS | dict(wanted)
    for name, value in settings.items():
        if name not in _SETTINGS:
            known = ", ".join(_SETTINGS)
            raise ConfigError(f"there is no setting {name[:40]!r}", f"there are {known}")
        if type(value) not in _SETTINGS[name] or not math.isfinite(
            value if isinstance(value, int | float) else 0
        ):
            raise ConfigError(f"the setting {name} is {str(value)[:40]!r}")
    if missing := _SETTINGS.keys() - settings.keys():
        raise ConfigError(f"settings are missing: {', '.join(sorted(missing))}")
    if settings["shading"] not in SHARES or settings["size"] not in ("source", "model"):
        raise ConfigError("the shading is off, low or full, the size source or model")
    return settings
