"""The loop of a stream: takes driving frames as they come, and says what is shown, and when.

One thread, that of whoever iterates, runs it. Driving frames come from another (`feed.py`), and
source and reference are prepared in a third (`pairs.py`). Whatever those do, this loop goes on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..landmarks import Picture
from ..support.errors import ConfigError
from .choice import Choice
from .cuts import Cuts
from .errands import Answer, Errands, nobody
from .feed import Arrival, Feed
from .how import How
from .metrics import Metrics
from .orders import Order
from .pairing import Pairing, reads
from .pairs import Pair, Pairs, Still
from .renderer import RendererLost
from .showing import Showing, Shown

log = logging.getLogger("sonomime")

DEFAULT_RATE = 25.0  # frames a second that are shown while none come, where nothing says another
HELD_AFTER = 0.25  # seconds without a driving frame, at least those of 3 frames
LOOK = 0.02  # seconds within which an order is obeyed


class Loop:
    """`frames` is iterated over once. All else is for its thread, as errands, but what is said to
    be for any.

    Attributes:
        paused: whether the picture is held, because somebody asked for that; for any thread.
        settings: what orders have changed, for `Animator.adjust`, of this pair and later ones; for
            any thread.
        stopped: set it, in any thread, to end after the next frame.
    """

    def __init__(
        self, driving: Feed, choice: Choice, pairs: Pairs, pairing: Pairing, showing: Showing,
        errands: Errands, metrics: Metrics, how: How, has_template: bool,
    ) -> None:  # fmt: skip
        """
        Args:
            has_template: whether `driving` gives the times of a motion template.
        """
        self._driving, self._choice, self._has_template = driving, choice, has_template
        self._pairs, self._pairing, self._showing = pairs, pairing, showing
        self._errands, self._metrics, self._how = errands, metrics, how
        self._cuts = Cuts()
        self._seen: Arrival | None = None  # the newest driving frame
        self.paused = False
        self.settings: dict[str, Any] = {}
        self.stopped = threading.Event()

    @property
    def rate(self) -> float:
        """Frames a second, as far as known; for any thread."""
        return self._driving.rate or DEFAULT_RATE

    def frames(self) -> Iterator[Shown]:
        """Frames until the driving clip ends, or until it is `stopped`.

        Raises:
            SonomimeError: the first source cannot be used, the driving clip cannot be read on, or a
                stage failed.
        """
        self._shown_at = self._arrived = time.perf_counter()
        for feed in self.feeds():
            if feed.pace == "live":
                feed.start()
        self._pairing.begin()
        try:
            yield from self._frames()
        finally:
            self._errands.end()
            self._pairing.end()

    def _frames(self) -> Iterator[Shown]:
        unpaced = self._driving.pace == "unpaced"
        while not self.stopped.is_set():
            self._errands.run()
            if (still := self._choice.due()) is not None:
                self.take_still(still)
            elif self._choice.still is None and (live := self._choice.live) is not None:
                waits = live.problem or live.name
                self._metrics.say("warming up", f"waiting for the source: {waits}")
            # A clip waits for the first pair, so that none of its frames is lost.
            wanted = self._pairing.pair is not None or self._pairing.wants_reference
            if wanted and not self._driving.started:
                self._driving.start()
                self._arrived = time.perf_counter()
            has_ended = self._driving.ended  # before the last frame is taken
            arrival = self._next()
            if arrival is None and has_ended and not self.paused:
                if (error := self._driving.error) is not None:
                    raise error
                return
            if arrival is not None:
                self._take(arrival)
                if unpaced:
                    self._look_for_cut(arrival)
            is_new = self._pairing.swap(self.settings, wait=unpaced)
            if is_new:
                self._showing.take_pair()
            lost = self._pairing.is_lost and not self.stopped.is_set()
            if lost and time.perf_counter() >= self._pairing.replace_at:
                self._pairing.replace()
            due = self._due()
            if (shown := self._made(arrival, is_new, due)) is not None or (
                time.perf_counter() >= due
            ):
                self._shown_at = time.perf_counter()
            if shown is not None:
                self._metrics.add(shown.state, shown.why, shown.latency, shown.quality)
                yield shown
            if arrival is not None and not unpaced:
                self._look_for_cut(arrival)  # after it is shown, which is so shown sooner

    def _next(self) -> Arrival | None:
        """The newest driving frame, waited for until something else is due."""
        patience = min(LOOK, max(0.0, self._due() - time.perf_counter()))
        if self.paused or not self._driving.started:
            self.stopped.wait(patience)
            return None
        return self._driving.arrivals.take(patience)

    def _newest(self, arrival: Arrival) -> Arrival:
        """A driving frame, or a newer one that has come meanwhile; an unpaced clip goes on frame by
        frame."""
        unpaced = self._driving.pace == "unpaced"
        if unpaced or (newer := self._driving.arrivals.take(0)) is None:
            return arrival
        self._driving.pass_over()
        self._take(newer)
        return newer

    def _take(self, arrival: Arrival) -> None:
        """Take a driving frame, as the reference too, where one is wanted."""
        self._seen, self._arrived = arrival, time.perf_counter()
        if arrival.image is not None:
            self._pairing.offer(Picture(arrival.image, self._how.crop))

    def _look_for_cut(self, arrival: Arrival) -> None:
        """Take a driving frame as the reference, where a scene has begun with it."""
        image = arrival.image
        if image is None or self._how.on_cut != "reset":
            return
        if not self._cuts.begun(image, arrival.turn):
            return
        if self._pairing.by_hand:
            log.warning("%s: a scene cut; landmarks set by hand are kept", self._driving.name)
        else:
            log.warning("%s: a scene cut: a new reference is taken", self._driving.name)
            self._pairing.wants_reference = True
            self._pairing.offer(Picture(image, self._how.crop))

    def take_still(self, still: Still, answer: Answer = nobody) -> None:
        """Want another source picture."""
        self._showing.take_form(*self._pairs.form_for(still.picture.image))
        self._pairing.take_still(reads(still), answer)

    # -- what is shown -----------------------------------------------------------------------------

    def _made(self, arrival: Arrival | None, is_new: bool, due: float) -> Shown | None:
        """The frame to show now, if one is due. `is_new`: the pair is."""
        pair = self._pairing.pair
        waits = self._driving.pace == "unpaced"  # until a lost renderer is replaced
        can_move = not self.paused and (waits or not self._pairing.is_lost)
        with suppress(RendererLost):  # which the loop sees
            if arrival is not None and pair is not None and can_move:
                if self._how.turns is None:
                    return self._moved(pair, arrival)
                with self._how.turns.take(arrival.came):
                    return self._moved(pair, self._newest(arrival))
            if arrival is not None:
                self._driving.pass_over()  # nothing is ready yet
            if pair is not None and is_new and self._seen is not None:
                # A new source shows at once, though nothing moves.
                fresh = not self.paused and time.perf_counter() < self._arrived + self._patience
                return self._showing.again(pair, self._seen, self._arrived, self.paused, fresh)
        if time.perf_counter() < due:
            return None
        return self._showing.same(pair, self._arrived, self.paused)

    def _moved(self, pair: Pair, arrival: Arrival) -> Shown | None:
        """The frame of a driving frame."""
        while True:
            try:
                return self._showing.moved(pair, arrival)
            except RendererLost:
                if self._driving.pace != "unpaced" or self.stopped.is_set():
                    raise
            self.stopped.wait(self._pairing.replace())
            self._pairing.swap(self.settings, wait=True)
            pair = self._pairing.pair or pair

    def _due(self) -> float:
        """When a frame is shown again, if none comes before: never, if the clip waits."""
        if self._driving.pace == "unpaced":
            return math.inf
        period = 1 / self.rate
        if self._pairing.pair is None or self.paused or self._pairing.is_lost:
            return self._shown_at + period
        return max(self._shown_at + period, self._arrived + self._patience)

    @property
    def _patience(self) -> float:
        """Seconds without a driving frame after which the picture is held."""
        return max(HELD_AFTER, 3 / self.rate)

    # -- orders ------------------------------------------------------------------------------------

    def obey(self, order: Order, answer: Answer) -> None:
        """Obey an order, and answer, now or when it is prepared."""
        name, value = order
        if name == "source":
            self._pairing.take_still(self._choice.named(value), answer)
            return
        if name == "reference":
            if self._has_template:
                raise ConfigError("a motion template has a reference of its own")
            self._pairing.wants_reference = True
        elif name in ("pause", "resume"):
            self._pause(name == "pause")
        elif name == "stop":
            self.stopped.set()
        elif self._pairing.pair is None:
            raise ConfigError("the stream is not ready yet", "ask again when it is live")
        else:
            setting = {name: float(value) if name == "scale" else value}
            self._pairing.pair.renderer.adjust(**setting)
            self.settings = self.settings | setting
        answer("ok")

    def _pause(self, paused: bool) -> None:
        if paused is self.paused:
            return
        self.paused = paused
        self._driving.pause(paused)
        if self._driving.pace != "unpaced" and self._driving.arrivals.take(0) is not None:
            self._driving.pass_over()  # it would come late
        self._arrived = time.perf_counter()

    def feeds(self) -> list[Feed]:
        """What it reads; for any thread."""
        return [feed for feed in (self._driving, self._choice.live) if feed is not None]
