"""A source picture moved by driving frames as they come, one after the other, for as long as they do.

One thread, that of whoever iterates, makes the frames. Driving frames come from a thread of their
own (`feed.py`), source and reference are prepared in another (`pairs.py`), and what is shown goes
to outlets that have theirs (`outlets.py`). Whatever they do, this loop goes on, and every frame says
in what state it is.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from ..animator import Animator
from ..compose import Size
from ..driving import DrivingTemplate
from ..landmarks import Picture
from ..media.frames import Crop, Image
from ..quality import Quality
from ..support.errors import ConfigError, InputError, SonomimeError, StreamError
from .cuts import Cuts
from .feed import Arrival, Feed
from .metrics import Metrics
from .orders import Order, parse_order
from .pairs import Pair, Pairs, Still, Wanted
from .screen import Screen, State

log = logging.getLogger("sonomime")

DEFAULT_RATE = 25.0  # frames a second that are shown while none come, where nothing says another
HELD_AFTER, LOST_AFTER = 0.25, 2.0  # seconds without a driving frame; the first at least 3 frames
DOUBT_SECONDS = 1.0  # doubtful: at least half of the frames of the last so many seconds are
LOOK = 0.02  # seconds within which orders are obeyed


class Shown(NamedTuple):
    """A frame of a stream.

    Attributes:
        number: from 0; those of outlets that drop frames have gaps.
        image: uint8 (H, W) or (H, W, 3), always of one shape; marked.
        timestamp: seconds since the stream began; of a clip that is not paced, its own.
        made_at: seconds since 1970.
        state: whether the picture is live, and what it is if not.
        why: in words, where it is not live.
        latency: seconds since the driving frame came or was due; None for one shown again.
        quality: of the frame, if the model says and it is a new one.
        source: the source picture's name.
        spacing: (x, y) millimetres from pixel to pixel, if the source says.
    """

    number: int
    image: Image
    timestamp: float
    made_at: float
    state: State
    why: str
    latency: float | None
    quality: Quality | None
    source: str
    spacing: tuple[float, float] | None


@dataclass(frozen=True)
class How:
    """How a stream shows its frames.

    Attributes:
        size: of the frames, as of the first source; later sources are fitted into it.
        landmarks: as for `align_pair`; a file's are those of the first source and reference.
        mark: burn in the synthetic mark, and words for the state.
        on_cut: what to do after a scene cut: take a new reference, or go on.
        rate: frames a second while no driving frame comes; None: as the feed says.
        crop: which part of whole driving frames the feed gives.
    """

    size: Size = "source"
    landmarks: str | Path = "auto"
    mark: bool = True
    on_cut: Literal["reset", "ignore"] = "reset"
    rate: float | None = None
    crop: Crop | None = None


class Stream:
    """Iterate over it for its frames, or `start` it with a function that gets them::

        with Stream(Animator.open, lambda: Still(Picture(image), "still"), feed) as stream:
            for shown in stream:
                ...

    `order` may be called from any thread, and so may `metrics.snapshot`; a frame belongs to whoever
    got it. A stream is iterated over once, in one thread.
    """

    def __init__(
        self, open_animator: Callable[[], Animator], source: Callable[[], Still] | Feed,
        driving: Feed, template: DrivingTemplate | None = None,
        reference: Image | None = None, how: How = How(),
    ) -> None:  # fmt: skip
        """
        Args:
            open_animator: opens an Animator, in a thread of the stream; a second one for the first
                change of source or reference.
            source: reads the source picture; or a feed, whose newest frame is taken at first and
                by the order `source newest`.
            driving: where driving frames come from; `template` if they are times of that.
            reference: the reference frame; None: the first driving frame.
        """
        self._how, self._driving, self._template = how, driving, template
        self._live_source = source if isinstance(source, Feed) else None
        self._still = None if isinstance(source, Feed) else source
        self._landmarks = how.landmarks
        self._reference = None if reference is None else Picture(reference, how.crop)
        self._pairs = Pairs(open_animator, template, how.size, warm=not driving.waits)
        self._pair: Pair | None = None
        self._screen: Screen | None = None
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._take_reference = reference is None and template is None
        self._cuts = Cuts()
        self._seen: Arrival | None = None  # the newest driving frame
        self._picture: Image | None = None  # the newest synthesized frame
        self._doubts: deque[tuple[float, str]] = deque()
        self._paused = self._stopping = False
        self._number, self._clock = 0, -1.0
        self.metrics = Metrics(self._dropped)
        self.drops: dict[str, Callable[[], int]] = {}  # of outlets, by name
        self._thread: threading.Thread | None = None

    # -- from any thread ---------------------------------------------------------------------------

    def order(self, text: str, answer: Callable[[str], None] = lambda text: None) -> None:
        """Ask for something (`orders.py`); it is done before one of the next frames.

        Args:
            answer: gets "ok", or what was wrong, in the stream's thread.

        Raises:
            ConfigError: there is no such order.
        """
        self._orders.put(parse_order(text, answer))

    def stop(self) -> None:
        """End after the next frame; frames that were made are kept."""
        self._stopping = True

    def start(self, show: Callable[[Shown], object]) -> None:
        """Run in a thread of its own; `show` gets each frame there. `close` waits for it."""

        def run() -> None:
            for shown in self:
                show(shown)

        self._thread = threading.Thread(target=run, name="stream", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and release everything; not from the stream's own thread."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        for feed in self._feeds():
            feed.stop()
        self._pairs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- the loop ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Shown]:
        """Frames until the driving clip ends, or `stop`.

        Raises:
            SonomimeError: the first source cannot be used; the driving clip cannot be read on; a
                stage failed.
        """
        for feed in self._feeds():
            feed.start()
        self._begin = self._came = self._shown_at = time.perf_counter()
        if self._template is not None or self._reference is not None:
            self._prepare()
        while not self._stopping:
            self._obey()
            arrival = None if self._paused else self._driving.arrivals.take(self._patience())
            if arrival is None and self._driving.ended and not self._paused:
                if self._driving.error is not None:
                    raise self._driving.error
                return
            if arrival is not None:
                self._take(arrival)
            elif self._paused:
                time.sleep(min(self._patience(), LOOK))
            is_new = self._swap(wait=self._driving.waits and arrival is not None)
            if arrival is None and is_new:
                arrival = self._seen  # a new source shows at once, though nothing moves
            shown = None
            if arrival is not None and self._pair is not None:
                shown = self._animated(self._pair, arrival, again=arrival is not self._seen)
            elif self._screen is not None and time.perf_counter() >= self._due():
                shown = self._again(self._screen)
            if shown is not None:
                self._shown_at = time.perf_counter()
                self.metrics.add(shown.state, shown.why, shown.latency, shown.quality)
                self._number += 1
                yield shown
