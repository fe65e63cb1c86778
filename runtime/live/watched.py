"""Frames that another program writes into a folder, one picture file after the other."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from ..readers.file_headers import DICOM, IMAGE, METAIMAGE, NRRD, kind_by_name
from ..readers.open_source import open_source
from ..readers.reading import Reading
from ..support.errors import InputError
from .feed import Feed

PICTURES = (IMAGE, DICOM, METAIMAGE, NRRD)
LOOK, SHARE = 0.01, 10  # seconds between two looks; at least so many times what a look takes
WRITTEN_WITHIN = 2.0  # seconds: a file that cannot be read for longer is passed over


def fetch_watched(feed: Feed, folder: Path, how: Reading) -> None:
    """The newest picture in a folder, whenever there is another one. Those that are there at the
    beginning are passed over; a file that is not whole yet is tried again."""
    announced, missing, pause = False, False, LOOK
    try:
        shown = _newest(folder)
    except OSError:
        shown = None  # it may be made later
    waited: dict[str, float] = {}  # since when a file could not be read
    while feed.sleep(pause):
        begin = time.perf_counter()
        try:
            newest = _newest(folder)
            pause = max(LOOK, SHARE * (time.perf_counter() - begin))
        except OSError as error:
            feed.problem, missing = f"{folder}: {error.strerror or error}", True
            feed.sleep(10 * LOOK)
            continue
        if newest is None or newest == shown:
            if missing or not feed.problem:
                feed.problem = f"{folder} has no new pictures"
            missing = False
            continue
        path, now = folder / newest[1], time.perf_counter()
        try:
            source = open_source(path, how, 3, announce=False)
            image = next(iter(source)).image
        except (InputError, StopIteration) as error:
            since = waited.setdefault(newest[1], now)
            if now - since > WRITTEN_WITHIN:
                shown, feed.problem = newest, f"{path.name} cannot be read: {error}"
                waited.clear()
            continue
        if not announced:
            source.announce()  # once: the others will be like it
            announced = True
        waited.clear()
        shown = newest
        feed.arrived(image)


def _newest(folder: Path) -> tuple[int, str] | None:
    """When it was changed (nanoseconds), and its name. Hidden files are being written."""
    found = None
    with os.scandir(folder) as entries:
        for entry in entries:
            named = not entry.name.startswith(".") and kind_by_name(Path(entry.name)) in PICTURES
            with suppress(FileNotFoundError):  # it has gone meanwhile
                if named and entry.is_file():
                    found = max(found or (0, ""), (entry.stat().st_mtime_ns, entry.name))
    return found
