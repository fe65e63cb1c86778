"""Frames that another program writes into a folder, one picture file after the other."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..readers.open_source import open_source
from ..readers.reading import Reading
from ..support.errors import InputError
from .feed import Feed

LOOK = 0.01  # seconds between two looks
WRITTEN_WITHIN = 2.0  # seconds: a file that cannot be read for longer is passed over


def fetch_watched(feed: Feed, folder: Path, how: Reading) -> None:
    """The newest picture in a folder, whenever there is a newer one. Older ones are passed over; a
    file that is not whole yet is tried again."""
    shown, announced = (0, ""), False
    waited: dict[str, float] = {}  # since when a file could not be read
    while feed.sleep(LOOK):
        try:
            newest = _newest(folder)
        except OSError as error:
            feed.problem = f"{folder}: {error.strerror or error}"
            feed.sleep(10 * LOOK)
            continue
        if newest is None or newest <= shown:
            feed.problem = feed.problem if shown[1] else f"{folder} has no pictures yet"
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
            if entry.name.startswith(".") or not entry.is_file():
                continue
            found = max(found or (0, ""), (entry.stat().st_mtime_ns, entry.name))
    return found
