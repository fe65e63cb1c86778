"""A source picture moved by driving frames as they come, for as long as they do.

One thread, that of whoever iterates, makes the frames. Driving frames come from another
(`feed.py`), and source and reference are prepared in a third (`pairs.py`). Whatever those do, this
loop goes on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self

from ..animator import Animator
from ..bundle.manifest import Chain
from ..driving import DrivingTemplate
from ..landmarks import Landmarks, Picture
from ..media.frames import Image
from ..support.errors import ConfigError, SonomimeError
from .choice import Choice
from .cuts import Cuts
from .errands import Answer, Errands, nobody
from .feed import Arrival, Feed
from .how import AS_ASKED, How
from .metrics import Metrics
from .orders import Order, parse_order
from .pairing import Pairing, reads
from .pairs import Pair, Pairs, Sources, Still
from .renderer import AnyRenderer, RendererLost
from .showing import Showing, Shown

log = logging.getLogger("sonomime")

DEFAULT_RATE = 25.0  # frames a second that are shown while none come, where nothing says another
HELD_AFTER = 0.25  # seconds without a driving frame, at least those of 3 frames
LOOK = 0.02  # seconds within which an order is obeyed


class Stream:
    """Iterate over it for its frames, or `start` it with a function that gets them::

        with Stream(bundle.manifest, Animator.open, still, feed) as stream:
            for shown in stream:
                ...

    `order`, `take_source` and `metrics.snapshot` may be called from any thread, and a frame belongs
    to whoever got it. A stream is iterated over once, in one thread.
    """

    def __init__(
        self, chain: Chain, open_animator: Callable[[], Animator | AnyRenderer],
        source: Still | Feed,
        driving: Feed, template: DrivingTemplate | None = None, reference: Image | None = None,
        how: How = AS_ASKED, sources: Sources | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            chain: of the bundle.
            open_animator: opens an Animator of it, in a thread of the stream, or a renderer that is
                elsewhere; the first change of source or reference takes `another`.
            source: the source picture; or a feed, whose newest frame is taken at first, and
                whenever it is asked for.
            driving: where driving frames come from; `template`: what its times are of.
            reference: the reference frame; None: the first driving frame.
            sources: those that an order can name; None: such orders are refused.

        Raises:
            InputError: the source is no picture.
            ConfigError: a size that cannot be made of it.
        """
        self.chain = chain
        self._how, self._driving, self._template = how, driving, template
        self._choice = Choice(source, how.source_every, sources)
        self._pairs = Pairs(
            chain, open_animator, how.size, template, how.loop, warm=driving.pace != "unpaced"
        )
        given = None if reference is None else Picture(reference, how.crop)
        wants_reference = reference is None and template is None
        self._pairing = Pairing(self._pairs, self._choice, given, wants_reference, how.landmarks)
        self._errands = Errands()
        self._cuts = Cuts()
        self._seen: Arrival | None = None  # the newest driving frame
        self.paused = False
        #: What orders have changed, for `Animator.adjust`, of this pair and later ones.
        self.settings: dict[str, Any] = {}
        self._showing = Showing(driving, how.mark)
        if isinstance(source, Still):
            self._showing.take_form(*self._pairs.form_for(source.picture.image))
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._done = threading.Event()  # its thread has ended
        self.error: SonomimeError | None = None  # what ended it, if it was `start`ed
        #: Frames that were dropped, by where. Replace it to add those of outlets.
        self.drops: dict[str, Callable[[], int]] = {"driving": lambda: driving.dropped}
        self.metrics = Metrics(
            lambda: {name: count() for name, count in self.drops.items()},
            lambda: self._pairing.losses,
        )

    # -- from any thread ---------------------------------------------------------------------------

    def order(self, text: str, answer: Answer = nobody) -> None:
        """Ask for something (`orders.py`); it is done before one of the next frames.

        Args:
            answer: gets "ok", or what was wrong, in the stream's thread.

        Raises:
            ConfigError: there is no such order.
            StreamError: too many orders wait.
        """
        order = parse_order(text)
        self._errands.put(lambda: self._do(order, answer), answer)

    def take_source(self, still: Still, answer: Answer = nobody) -> None:
        """Take another source picture as soon as it is prepared."""
        self._errands.put(lambda: self._take_given(still, answer), answer)

    def take_landmarks(
        self, landmarks: Landmarks, number: int | None = None, answer: Answer = nobody
    ) -> None:
        """Align the present source and reference by these, as soon as that is prepared; not if
        others are wanted meanwhile, or if `pair_number` is not this one any more."""
        self._errands.put(lambda: self._pairing.take_landmarks(landmarks, number, answer), answer)

    def stop(self) -> None:
        """End after the next frame."""
        self._stopped.set()

    def start(
        self, show: Callable[[Shown], object], end: Callable[[Shown], object] = lambda shown: None
    ) -> None:
        """Run in a thread of its own; `show` gets each frame there, and `end` a last, black one."""

        def run() -> None:
            try:
                for shown in self:
                    show(shown)
            except SonomimeError as error:
                self.error = error
            except Exception as error:
                log.exception("the stream has ended")
                self.error = SonomimeError(f"the stream has ended: {error!r}")
            try:
                if (last := self._showing.last()) is not None:
                    self.metrics.say(last.state, last.why)
                    end(last)
            finally:
                self._done.set()

        self._thread = threading.Thread(target=run, name="stream", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether a stream that was `start`ed has ended."""
        return self._done.is_set()

    @property
    def pair(self) -> Pair | None:
        """What is shown."""
        return self._pairing.pair

    @property
    def pair_number(self) -> int:
        """The number of that, among those of all streams of this process."""
        return self._pairing.number

    @property
    def rate(self) -> float:
        """Frames a second, as far as known."""
        return self._driving.rate or DEFAULT_RATE

    @property
    def template_landmarks(self) -> list[str] | None:
        """Names of the places that a template knows; None if a clip or something live drives."""
        return None if self._template is None else self._template.landmarks

    def source_names(self) -> list[str]:
        """What the order `source` can name."""
        return self._choice.names()

    def wait(self, timeout: float | None = None) -> bool:
        """`ended`, after at most so many seconds."""
        # Not by join: Python 3.11 takes a thread for ended when a signal interrupts that.
        return self._done.wait(timeout)

    def finish(self) -> None:
        """Stop, and wait until no frame will come; not from the stream's own thread."""
        self.stop()
        if self._driving.pace == "unpaced":
            self._driving.stop()
            self._pairs.stop()  # for which its thread may wait
        if self._thread is not None:
            self._done.wait()
            self._thread.join()

    def close(self) -> None:
        """`finish`, and release everything."""
        self.finish()
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
            SonomimeError: the first source cannot be used, the driving clip cannot be read on, or a
                stage failed.
        """
        self._begin = self._shown_at = self._arrived = time.perf_counter()
        for feed in self._feeds():
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
        while not self._stopped.is_set():
            self._errands.run()
            if (still := self._choice.due()) is not None:
                self._take_given(still)
            elif self._choice.still is None and (live := self._choice.live) is not None:
                waits = live.problem or live.name
                self.metrics.say("warming up", f"waiting for the source: {waits}")
            # A clip waits for the first pair, so that none of its frames is lost.
            wanted = self.pair is not None or self._pairing.wants_reference
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
            lost = self._pairing.is_lost and not self._stopped.is_set()
            if lost and time.perf_counter() >= self._pairing.replace_at:
                self._pairing.replace()
            due = self._due()
            if (shown := self._made(arrival, is_new, due)) is not None or (
                time.perf_counter() >= due
            ):
                self._shown_at = time.perf_counter()
            if shown is not None:
                self.metrics.add(shown.state, shown.why, shown.latency, shown.quality)
                yield shown
            if arrival is not None and not unpaced:
                self._look_for_cut(arrival)  # after it is shown, which is so shown sooner

    def _next(self) -> Arrival | None:
        """The newest driving frame, waited for until something else is due."""
        patience = min(LOOK, max(0.0, self._due() - time.perf_counter()))
        if self.paused or not self._driving.started:
            self._stopped.wait(patience)
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

    def _take_given(self, still: Still, answer: Answer = nobody) -> None:
        self._showing.take_form(*self._pairs.form_for(still.picture.image))
        self._pairing.take_still(reads(still), answer)

    # -- what is shown -----------------------------------------------------------------------------

    def _made(self, arrival: Arrival | None, is_new: bool, due: float) -> Shown | None:
        """The frame to show now, if one is due. `is_new`: the pair is."""
        pair = self.pair
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
                if self._driving.pace != "unpaced" or self._stopped.is_set():
                    raise
            self._stopped.wait(self._pairing.replace())
            self._pairing.swap(self.settings, wait=True)
            pair = self.pair or pair

    def _due(self) -> float:
        """When a frame is shown again, if none comes before: never, if the clip waits."""
        if self._driving.pace == "unpaced":
            return math.inf
        period = 1 / self.rate
        if self.pair is None or self.paused or self._pairing.is_lost:
            return self._shown_at + period
        return max(self._shown_at + period, self._arrived + self._patience)

    @property
    def _patience(self) -> float:
        """Seconds without a driving frame after which the picture is held."""
        return max(HELD_AFTER, 3 / self.rate)

    # -- orders ------------------------------------------------------------------------------------

    def _do(self, order: Order, answer: Answer) -> None:
        """Obey an order, and answer, now or when it is prepared."""
        name, value = order
        if name == "source":
            self._pairing.take_still(self._choice.named(value), answer)
            return
        if name == "reference":
            if self._template is not None:
                raise ConfigError("a motion template has a reference of its own")
            self._pairing.wants_reference = True
        elif name in ("pause", "resume"):
            self._pause(name == "pause")
        elif name == "stop":
            self.stop()
        elif self.pair is None:
            raise ConfigError("the stream is not ready yet", "ask again when it is live")
        else:
            setting = {name: float(value) if name == "scale" else value}
            self.pair.renderer.adjust(**setting)
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

    def _feeds(self) -> list[Feed]:
        return [feed for feed in (self._driving, self._choice.live) if feed is not None]
