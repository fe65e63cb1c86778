"""Where driving frames come from while they are made: a thread that fetches them.

A feed is given a function that fetches frames; cameras, folders, clips and templates each have one.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias

from ..driving import DrivingClip, DrivingTemplate
from ..media.frames import Crop, Image, check_image, crop_image
from ..support.errors import InputError
from .slot import Slot

log = logging.getLogger("sonomime")

PATIENCE = 3.0  # seconds
TEMPLATE_RATE = 25.0  # frames a second of a template

Pace: TypeAlias = Literal["live", "paced", "unpaced"]
"""Frames come when they come; at the times of a clip or template; or as fast as they are taken. Of
the first two the newest wins, the last waits until each is taken."""


class Arrival(NamedTuple):
    """A driving frame. image: None of a template, which has none; timestamp: seconds, which
    increase, by the feed's own clock; came: when it came or was due, by time.perf_counter();
    turn: how often its clip has
    begun again."""

    image: Image | None
    timestamp: float
    came: float
    turn: int = 0


class Feed:
    """Fetches frames from `start` until they end, or until `stop`.

    Attributes:
        name: what it reads, for people.
        pace: see `Pace`.
        rate: frames a second, if they are known before they come.
        arrivals: where the newest frame lies.
        dropped: how many frames came and were not used.
        problem: what is wrong at the moment, "" if nothing is; the function sets it.
        error: what ended it unasked.
    """

    def __init__(
        self, name: str, fetch: Callable[[Feed], None], pace: Pace = "live",
        rate: float | None = None, crop: Crop | None = None, is_cut: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            fetch: calls `arrived` for each frame, until there are no more or `stopped`.
            crop: the part of whole frames to keep; `is_cut`: they come without the rest.
        """
        self.name, self.pace, self.rate = name, pace, rate
        self.arrivals: Slot[Arrival] = Slot()
        self._passed_over = 0
        self.problem = ""
        self.error: Exception | None = None
        self._fetch, self.crop, self._is_cut = fetch, crop, is_cut
        self._stopped = threading.Event()
        self._running = threading.Event()  # not paused
        self._running.set()
        self._thread = threading.Thread(target=self._run, name=f"feed {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait for its thread, unless that waits for a camera or a network for longer
        than PATIENCE: then it ends by itself. A second call does nothing."""
        self._stopped.set()
        self._running.set()
        self.arrivals.close()
        if self.started:
            self._thread.join(PATIENCE)

    @property
    def started(self) -> bool:
        return self._thread.ident is not None

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return self.started and not self._thread.is_alive()

    @property
    def dropped(self) -> int:
        return self.arrivals.dropped[""] + self._passed_over

    def pass_over(self) -> None:
        """A frame that was taken is not used."""
        self._passed_over += 1

    def pause(self, paused: bool) -> None:
        """Let clips and templates stand still, or go on; live feeds go on in any case."""
        if paused:
            self._running.clear()
        else:
            self._running.set()

    # -- for the function that fetches -------------------------------------------------------------

    def sleep(self, seconds: float) -> bool:
        """Wait; False if it shall end."""
        return not self._stopped.wait(seconds) if seconds > 0 else not self.stopped

    def arrived(
        self, image: Image | None, seconds: float | None = None, came: float = 0.0,
        turn: int = 0,
    ) -> None:  # fmt: skip
        """A frame is there, now unless its time and when it came are given. One that cannot be used
        is passed over, and is the `problem`."""
        if seconds is None:
            seconds = came = time.perf_counter()
        if image is not None:
            try:
                check_image(image)
                if self.crop is not None and not self._is_cut:
                    image = crop_image(image, self.crop, f"a frame of {self.name}")
            except InputError as error:
                self.problem = str(error)
                self.pass_over()
                return
        self.problem = ""
        put = self.arrivals.hand if self.pace == "unpaced" else self.arrivals.put
        put(Arrival(image, seconds, came, turn))

    def play(self, timed: Iterator[tuple[Image | None, float, int]]) -> None:
        """Frames at their times, in seconds from now, and their turns; pauses are added to what
        comes after them. At once, if the feed is not paced."""
        begin = time.perf_counter()
        for image, seconds, turn in timed:
            if not self._running.is_set():
                stood = time.perf_counter()
                self._running.wait()
                begin += time.perf_counter() - stood
            due = begin + seconds if self.pace == "paced" else time.perf_counter()
            if not self.sleep(due - time.perf_counter()):
                return
            self.arrived(image, seconds, due, turn)

    def _run(self) -> None:
        try:
            self._fetch(self)
        except Exception as error:  # of any reader, in this thread: the stream reports it
            log.debug("%s has ended", self.name, exc_info=True)
            self.error = error
        finally:
            self.arrivals.close()


def clip_feed(name: str, clip: DrivingClip, pace: Pace, loop: bool) -> Feed:
    """The frames of a clip; `loop`: again and again."""

    def timed() -> Iterator[tuple[Image, float, int]]:
        begin = 0.0
        for turn in itertools.count():
            last, step, count = begin, 1 / float(clip.fps or 30), 0
            for frame in clip:
                step = begin + frame.timestamp - last or step
                last = begin + frame.timestamp
                yield frame.image, last, turn
                count += 1
            if not loop:
                return
            if not count:
                raise InputError(f"{name} cannot be read any more", "check the file")
            begin = last + step

    rate = float(clip.fps) if clip.fps else None
    return Feed(name, lambda feed: feed.play(timed()), pace, rate)


def template_feed(name: str, template: DrivingTemplate, pace: Pace, loop: bool) -> Feed:
    """Times of a motion template, TEMPLATE_RATE a second."""

    def timed() -> Iterator[tuple[None, float, int]]:
        number = 0
        while loop or number / TEMPLATE_RATE <= template.seconds:
            yield None, number / TEMPLATE_RATE, 0
            number += 1

    return Feed(name, lambda feed: feed.play(timed()), pace, TEMPLATE_RATE)
