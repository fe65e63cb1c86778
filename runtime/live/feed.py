"""Where driving frames come from while they are made: a thread that fetches them.

A feed is given a function that yields frames; cameras, folders, clips and templates each have one.
Frames of a live feed go on as they come, and the newest wins. A feed that `waits` goes no faster
than its frames are taken.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..driving import DrivingClip, DrivingTemplate
from ..media.frames import Image
from .slot import Slot

log = logging.getLogger("sonomime")

TEMPLATE_RATE = 25.0  # frames a second of a template


class Arrival(NamedTuple):
    """A driving frame. image: None of a template, which has none; timestamp: seconds, which
    increase, by the feed's own clock; came: when it came or was due, by time.perf_counter()."""

    image: Image | None
    timestamp: float
    came: float


class Feed:
    """Fetches frames from `start` until they end, or until `stop`.

    Attributes:
        name: what it reads, for people.
        rate: frames a second, if they are known before they come.
        waits: whether it waits until each frame is taken; if not, the newest wins.
        arrivals: where the newest frame lies; its `dropped` counts those that nobody took.
        problem: what is wrong at the moment, "" if nothing is.
        error: what ended it unasked.
    """

    def __init__(
        self, name: str, frames: Callable[[Feed], Iterator[Arrival]],
        rate: float | None = None, waits: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.rate, self.waits = name, rate, waits
        self.arrivals: Slot[Arrival] = Slot()
        self.problem = ""
        self.error: Exception | None = None
        self._frames = frames
        self._stopped = threading.Event()
        self._running = threading.Event()  # not paused
        self._running.set()
        self._thread = threading.Thread(target=self._fetch, name=f"feed {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait for its thread. A second call does nothing."""
        self._stopped.set()
        self._running.set()
        self.arrivals.close()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def pause(self, paused: bool) -> None:
        """Let clips and templates stand still, or go on; live feeds go on in any case."""
        if paused:
            self._running.clear()
        else:
            self._running.set()

    def sleep(self, seconds: float) -> bool:
        """For the function that yields frames: wait; False if it shall end."""
        return not self._stopped.wait(seconds) if seconds > 0 else not self.stopped

    def paced(self, timed: Iterator[tuple[Image | None, float]]) -> Iterator[Arrival]:
        """Frames at their times, in seconds from now; pauses are added to what comes after them.
        At once, if the feed waits."""
        begin = time.perf_counter()
        for image, seconds in timed:
            if not self._running.is_set():
                stood = time.perf_counter()
                self._running.wait()
                begin += time.perf_counter() - stood
            due = time.perf_counter() if self.waits else begin + seconds
            if not self.sleep(due - time.perf_counter()):
                return
            yield Arrival(image, seconds, due)

    def _fetch(self) -> None:
        hand_over = self.arrivals.hand if self.waits else self.arrivals.put
        try:
            for arrival in self._frames(self):
                if self.stopped:
                    break
                hand_over(arrival)
        except Exception as error:  # of any reader, in this thread: the stream reports it
            log.debug("%s has ended", self.name, exc_info=True)
            self.error = error
        finally:
            self.arrivals.close()


def clip_feed(name: str, clip: DrivingClip, loop: bool, paced: bool) -> Feed:
    """The frames of a clip; `loop`: again and again; `paced`: at their times, else as they are
    taken."""

    def timed() -> Iterator[tuple[Image, float]]:
        begin = 0.0
        while True:
            last, step = begin, 1 / float(clip.fps or 30)
            for frame in clip:
                step = begin + frame.timestamp - last or step
                last = begin + frame.timestamp
                yield frame.image, last
            if not loop:
                return
            begin = last + step

    rate = float(clip.fps) if clip.fps else None
    return Feed(name, lambda feed: feed.paced(timed()), rate, waits=not paced)


def template_feed(name: str, template: DrivingTemplate, loop: bool, paced: bool) -> Feed:
    """Times of a motion template, TEMPLATE_RATE a second."""

    def timed() -> Iterator[tuple[None, float]]:
        number = 0
        while loop or number / TEMPLATE_RATE <= template.seconds:
            yield None, number / TEMPLATE_RATE
            number += 1

    return Feed(name, lambda feed: feed.paced(timed()), TEMPLATE_RATE, waits=not paced)
