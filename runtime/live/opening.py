"""What a stream's source and driving input are: a file, a template, or something live.

Live ones are written `camera:NUMBER`, `watch:FOLDER` and `igtl://HOST:PORT`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..bundle.manifest import Chain
from ..driving import DrivingClip, DrivingTemplate, open_driving
from ..landmarks import Picture
from ..media.frames import Crop, Image
from ..readers.reading import Facts, Reading
from ..still import read_still, spacing_at
from ..support.errors import ConfigError, InputError
from .camera import fetch_camera
from .feed import Feed, Pace, clip_feed, template_feed
from .openigtlink.feed import fetch_igtl
from .openigtlink.message import crc64
from .pairs import Still
from .watched import fetch_watched

log = logging.getLogger("sonomime")

Say = Callable[[str], object]

LIVE = "camera:0, watch:FOLDER or igtl://HOST:PORT"


class Driving(NamedTuple):
    """What drives a stream: `feed`; the template whose times it gives, or the clip; the reference
    frame, None for the first that comes; the part of whole frames that is used."""

    feed: Feed
    template: DrivingTemplate | None = None
    clip: DrivingClip | None = None
    reference: Image | None = None
    crop: Crop | None = None


def open_live(text: str, how: Reading) -> Feed | None:
    """A feed of something live; None if the text means a file.

    Raises:
        ConfigError: it is written wrongly, or an option has no effect on it.
        BackendError: a package for it is missing.
    """
    kind, found, place = text.partition(":")
    if not found or kind not in ("camera", "watch", "igtl"):
        _refuse_address(text)
        return None
    for option in ("window", "region", "fps"):
        if kind != "watch" and getattr(how, option) is not None:
            hint = f"leave it out: {text} is live"
            raise ConfigError(f"{how.option}{option} is for files", hint)
    if kind != "watch" and (how.crop == "auto" or how.mask):
        what = f"the region of {text} is not found by itself"
        raise ConfigError(what, f"give it in pixels: {how.option}crop X,Y,W,H")
    if kind == "camera":
        if not re.fullmatch("[0-9]{1,3}", place):
            raise ConfigError(f"cannot read {text!r}", "write camera:0, camera:1 ...")
        fetch = partial(fetch_camera, number=int(place))
    elif kind == "watch":
        fetch = partial(fetch_watched, folder=Path(place), how=how)
        return Feed(text, fetch, crop=None if how.crop == "auto" else how.crop, is_cut=True)
    else:
        crc64(b"")  # a missing package is reported here, not in a thread
        host, port = parse_peer(text)
        fetch = partial(fetch_igtl, host=host, port=port)
    return Feed(text, fetch, crop=None if how.crop == "auto" else how.crop)


def _refuse_address(text: str) -> None:
    """ConfigError for what would be something live if it were written otherwise."""
    device = re.fullmatch(r"/dev/video([0-9]+)", text)
    if device or (text.casefold() in ("camera", "webcam") and not os.path.exists(text)):
        number = device[1] if device else "0"
        raise ConfigError(f"cannot read {text!r} as a file", f"write camera:{number}")
    if re.match(r"[a-z0-9+]+://|camera:|igtl:|watch:", text, re.IGNORECASE):
        hint = (
            "let another program, such as ffmpeg, write its pictures into a folder, and give "
            "watch:FOLDER"
        )
        scheme = text.partition(":")[0]
        raise ConfigError(f"{scheme}: is not one of the live inputs, which are {LIVE}", hint)


def parse_peer(text: str) -> tuple[str, int]:
    """Host and port of igtl://HOST:PORT; ConfigError if it is written wrongly."""
    found = re.fullmatch(r"igtl://(\[[0-9a-fA-F:.]+\]|[^:/\s\[\]]+):(\d{1,5})/?", text)
    if not found or not 0 < int(found[2]) < 65536:
        hint = "write igtl://HOST:PORT, as in igtl://localhost:18944"
        raise ConfigError(f"cannot read {text!r}", hint)
    return found[1].strip("[]"), int(found[2])


def parse_address(text: str, usual: int, option: str) -> tuple[str, int]:
    """Host and port of [HOST:]PORT to listen at, this machine alone if there is no host;
    ConfigError if it is written wrongly."""
    host, _, number = text.rpartition(":")
    if not number.isdecimal() or int(number) > 65535:
        hint = f"write a port, as in {option} {usual}, or HOST:PORT"
        raise ConfigError(f"cannot read {option} {text!r}", hint)
    return host.strip("[]") or "127.0.0.1", int(number)


def open_driving_feed(
    text: str, how: Reading, chain: Chain, pace: Pace, loop: bool, reference: str | int, say: Say
) -> Driving:
    """Open what drives a stream.

    Args:
        pace: of a clip or template.
        reference: `first`, or the index of a frame of a clip.
        say: gets a line about a clip or template.

    Raises:
        InputError: it cannot be read, or has no such frame.
        ConfigError: an option has no effect on it.
    """
    if (feed := open_live(text, how)) is not None:
        options = {"loop": loop, "unpaced": pace == "unpaced", "reference": reference != "first"}
        for option, given in options.items():
            if given:
                hint = f"leave it out: {text} is live"
                raise ConfigError(f"--{option} is for driving clips and templates", hint)
        return Driving(feed, crop=feed.crop)
    driving = open_driving(Path(text), how, chain.image.channels)
    driving.announce(say)
    if isinstance(driving, DrivingTemplate):
        if reference != "first":
            hint = "leave it out: a template has one reference"
            raise ConfigError("--reference has no effect with a motion template", hint)
        return Driving(template_feed(text, driving, pace, loop), driving)
    if isinstance(reference, str) and reference != "first":
        hint = "give a frame's number; `sonomime animate --reference best --json` says the best one"
        raise ConfigError(f"a stream cannot take {reference!r} as its reference", hint)
    image = driving.nth(0 if reference == "first" else int(reference))
    feed = clip_feed(text, driving, pace, loop)
    return Driving(feed, clip=driving, reference=image, crop=driving.crop)


class Stills:
    """Reads source pictures by their names. Names come from other programs: they lead nowhere but
    to the files that are listed."""

    def __init__(
        self, files: Callable[[], Mapping[str, Path]], how: Reading, chain: Chain, say: Say,
        check: Callable[[Facts], object] = lambda facts: None,
    ) -> None:  # fmt: skip
        """`check` may refuse what was read, by what is said about it."""
        self._files, self._how, self._chain, self._say = files, how, chain, say
        self._check = check

    def names(self) -> list[str]:
        return list(self._files())

    def read(self, name: str, frame: int = 0) -> Still:
        """
        Raises:
            InputError: no such file, or it cannot be read.
        """
        files = self._files()
        if name not in files:
            hint = f"there are {', '.join(sorted(files)) or 'none'}"
            raise InputError(f"there is no source {name!r}", hint)
        source, image = read_still(files[name], self._how, self._chain, frame)
        source.warn_of_clutter()
        source.announce(lambda line: self._say(f"source {line}"))
        self._check(source.facts)
        return Still(Picture(image, source.crop), name, spacing_at(source, source.size))


def files_beside(path: Path) -> Callable[[], dict[str, Path]]:
    """Lists the files in a file's folder, by name; a folder or a missing file: that one alone."""
    if not path.is_file():
        return lambda: {path.name: path}
    return lambda: files_in(path.parent)


def files_in(folder: Path) -> dict[str, Path]:
    """The files in a folder by their names; none, if it cannot be listed."""
    with suppress(OSError):
        found = sorted(folder.iterdir())
        return {path.name: path for path in found if path.is_file() and path.name[0] != "."}
    return {}
