"""A source picture moved by driving frames as they come, for as long as they do.

What others see of it, from any thread; the frames are made in one of their own (`loop.py`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

from ..animator import Animator
from ..bundle.manifest import Chain
from ..driving import DrivingTemplate
from ..landmarks import Landmarks, Picture
from ..media.frames import Image
from ..support.errors import SonomimeError
from .choice import Choice
from .errands import Answer, Errands, nobody
from .feed import Feed
from .how import AS_ASKED, How
from .loop import Loop
from .metrics import Metrics
from .orders import parse_order
from .pairing import Pairing
from .pairs import Pair, Pairs, Sources, Still
from .renderer import AnyRenderer
from .showing import Showing, Shown

log = logging.getLogger("sonomime")


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
        self._driving, self._template = driving, template
        self._choice = choice = Choice(source, how.source_every, sources)
        self._pairs = Pairs(
            chain, open_animator, how.size, template, how.loop, warm=driving.pace != "unpaced"
        )
        given = None if reference is None else Picture(reference, how.crop)
        wants_reference = reference is None and template is None
        self._pairing = Pairing(self._pairs, choice, given, wants_reference, how.landmarks)
        self._errands = Errands()
        self._showing = Showing(driving, how.mark)
        if isinstance(source, Still):
            self._showing.take_form(*self._pairs.form_for(source.picture.image))
        self._thread: threading.Thread | None = None
        self._done = threading.Event()  # its thread has ended
        self.error: SonomimeError | None = None  # what ended it, if it was `start`ed
        #: Frames that were dropped, by where. Replace it to add those of outlets.
        self.drops: dict[str, Callable[[], int]] = {"driving": lambda: driving.dropped}
        self.metrics = Metrics(
            lambda: {name: count() for name, count in self.drops.items()},
            lambda: self._pairing.losses,
        )
        self._loop = Loop(
            driving, choice, self._pairs, self._pairing, self._showing, self._errands, self.metrics,
            how, template is not None,
        )  # fmt: skip

    def order(self, text: str, answer: Answer = nobody) -> None:
        """Ask for something (`orders.py`); it is done before one of the next frames.

        Args:
            answer: gets "ok", or what was wrong, in the stream's thread.

        Raises:
            ConfigError: there is no such order.
            StreamError: too many orders wait.
        """
        order = parse_order(text)
        self._errands.put(lambda: self._loop.obey(order, answer), answer)

    def take_source(self, still: Still, answer: Answer = nobody) -> None:
        """Take another source picture as soon as it is prepared."""
        self._errands.put(lambda: self._loop.take_still(still, answer), answer)

    def take_landmarks(
        self, landmarks: Landmarks, number: int | None = None, answer: Answer = nobody
    ) -> None:
        """Align the present source and reference by these, as soon as that is prepared; not if
        others are wanted meanwhile, or if `pair_number` is not this one any more."""
        self._errands.put(lambda: self._pairing.take_landmarks(landmarks, number, answer), answer)

    def stop(self) -> None:
        """End after the next frame."""
        self._loop.stopped.set()

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
    def paused(self) -> bool:
        """Whether the picture is held, because somebody asked for that."""
        return self._loop.paused

    @property
    def settings(self) -> dict[str, Any]:
        """What orders have changed, for `Animator.adjust`."""
        return self._loop.settings

    @property
    def rate(self) -> float:
        """Frames a second, as far as known."""
        return self._loop.rate

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
        for feed in self._loop.feeds():
            feed.stop()
        self._pairs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Shown]:
        """Frames until the driving clip ends, or `stop`.

        Raises:
            SonomimeError: the first source cannot be used, the driving clip cannot be read on, or a
                stage failed.
        """
        return self._loop.frames()
