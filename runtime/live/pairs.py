"""Source and reference are prepared beside the stream, and take over when they are ready.

To take a new source or reference, the model encodes it and aligns the two, which takes several
frames' time. So a second renderer does that in a thread of its own, while the first goes on. In
the same way one takes the place of a renderer that is lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

from numpy.typing import NDArray

from ..animator import Animator
from ..bundle.manifest import Chain
from ..compose import Size, fitted
from ..driving import DrivingTemplate
from ..landmarks import Alignment, Landmarks, Picture
from ..media.frames import Image, Letterbox, check_image
from ..outlines import warn_of_outlines
from ..still import made_size
from ..support.errors import SonomimeError
from ..support.spread import TRIES
from .errands import ENDED
from .feed import Arrival
from .renderer import AnyRenderer, Rendered, Renderer, RendererLost, Scene
from .retry import Retry
from .slot import Slot

log = logging.getLogger("sonomime")


Form: TypeAlias = tuple[tuple[int, int], int]
"""((width, height), channels) of a stream's frames."""


REPLACED = "another source was asked for before this one was prepared"


class Still(NamedTuple):
    """A source picture, its name, and (x, y) millimetres from pixel to pixel, if known."""

    picture: Picture
    name: str
    spacing: tuple[float, float] | None = None


class Sources(Protocol):
    """Source pictures that can be asked for by name."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> Still:
        """InputError if there is none, or it cannot be read."""
        ...


class Wanted(NamedTuple):
    """What to prepare: a source, which is read then; a reference frame, None for a template, which
    has its own; landmarks, as for `align_pair`; who wants to hear "ok", or what was wrong."""

    still: Callable[[], Still]
    reference: Picture | None
    landmarks: Landmarks
    answer: Callable[[str], None]


class Pair(NamedTuple):
    """A renderer with its source and reference. landmarks: those that were given; alignment, grid:
    see `Prepared`; size: (width, height) of the frames; read: what read the source."""

    renderer: AnyRenderer
    still: Still
    reference: Picture | None
    landmarks: Landmarks
    alignment: Alignment
    grid: NDArray[Any] | None
    size: tuple[int, int]
    read: Callable[[], Still]

    @property
    def spacing(self) -> tuple[float, float] | None:
        """(x, y) millimetres from pixel to pixel of the frames, if they are known."""
        if self.still.spacing is None:
            return None
        height, width = self.still.picture.image.shape[:2]
        (x, y), (wide, high) = self.still.spacing, self.size
        return x * width / wide, y * height / high

    def frame(self, arrival: Arrival, timestamp: float) -> Rendered:
        """The synthesized frame, of `size`; errors as of `Animator.animate`, and RendererLost."""
        return self.renderer.frame(arrival.image, arrival.timestamp, timestamp)


class Pairs:
    """Prepares pairs: `want` one, and `swap` when it is there."""

    def __init__(
        self, chain: Chain, open_animator: Callable[[], Animator | AnyRenderer], size: Size,
        template: DrivingTemplate | None, loop: bool, warm: bool,
    ) -> None:  # fmt: skip
        """
        Args:
            open_animator: opens an Animator of this chain, or a renderer that is elsewhere; the
                second pair gets `another`.
            size: of the first pair's frames; those of later ones fit into it.
            template: the driving template, if it is one; `loop`: repeat it.
            warm: make a first frame in advance, so that the first one shown is not slow.
        """
        self._chain, self._open, self._template = chain, open_animator, template
        self._asked, self._loop, self._warm = size, loop, warm
        self._form: Form | None = None
        self._first: Image | None = None
        self._wanted: Slot[Wanted] = Slot()
        self._change = threading.Condition()
        self._ready: Pair | None = None
        self._spare: AnyRenderer | None = None
        self._stopped = False
        self._busy = 0  # wanted, and neither ready nor failed
        self._error: SonomimeError | None = None
        self._all: list[AnyRenderer] = []
        self._thread = threading.Thread(target=self._work, name="pairs", daemon=True)

    def form_for(self, image: Image) -> Form:
        """The form of all frames, as of the first source picture that this is asked about.

        Raises:
            InputError: no picture.
            ConfigError: a size that cannot be made of it.
        """
        if self._form is None:
            height, width = check_image(image).shape[:2]
            box = Letterbox.fit(width, height, self._chain.image.size)
            channels = 3 if image.ndim == 3 else self._chain.image.channels
            self._form, self._first = (made_size(box, self._asked, self._chain), channels), image
        return self._form

    def want(self, wanted: Wanted) -> None:
        """Prepare this, and nothing that was wanted before and is not begun. Never waits."""
        if not self._thread.ident:
            self._thread.start()
        if (before := self._wanted.take(0)) is not None:
            if before.still is wanted.still:  # that source is wanted as before
                wanted = wanted._replace(answer=_both(before.answer, wanted.answer))
            else:
                before.answer(REPLACED)
        else:
            with self._change:
                self._busy += 1
        self._wanted.put(wanted)

    @property
    def busy(self) -> bool:
        """Whether something is wanted that is neither ready nor failed."""
        return self._busy > 0

    def swap(self, shown: Pair | None, wait: bool = False) -> Pair | None:
        """The pair that has become ready, or None. The renderer of the one `shown` until now is
        then used for the next.

        Args:
            wait: wait until one is ready, if something is wanted.

        Raises:
            SonomimeError: what was wanted last could not be prepared; raised once.
        """
        with self._change:
            if wait:
                self._change.wait_for(lambda: self._ready or self._error or not self._busy)
            error, self._error = self._error, None
            if error is not None:
                raise error
            pair, self._ready = self._ready, None
            self._change.notify_all()
            if pair is not None and shown is not None:
                self._spare = shown.renderer
            return pair

    def stop(self) -> None:
        """Begin nothing more, and end what waits for a renderer elsewhere; `swap` then finds that
        nothing is wanted."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
            for renderer in self._all:
                renderer.stop()

    def close(self) -> None:
        """`stop`, wait for the thread, and close the renderers."""
        self._wanted.close()
        self.stop()
        if self._thread.ident:
            self._thread.join()
        for renderer in self._all:
            renderer.close()

    def _work(self) -> None:
        retry = Retry()
        for wanted in self._wanted:
            pair, error, losses = None, None, 0
            with self._change:
                # One that is ready is taken soon; it shall not be lost if this one fails.
                self._change.wait_for(lambda: self._ready is None or self._stopped)
                if self._stopped:
                    self._busy -= 1
                    self._change.notify_all()
                    wanted.answer(ENDED)
                    continue
                renderer, self._spare = self._spare, None
            try:
                still = wanted.still()
                size = self._size_of(still.picture.image)
                while pair is None:
                    renderer = self._usable(renderer)
                    try:
                        pair = self._prepared(renderer, wanted, still, size)
                        retry.worked()
                    except RendererLost as lost:
                        losses += 1
                        if losses == TRIES:  # it may be the picture's fault
                            raise
                        if not self._stopped:
                            log.warning("source and reference are prepared again: %s", lost)
                        with self._change:
                            if self._change.wait_for(lambda: self._stopped, retry.pause()):
                                break
            except SonomimeError as raised:
                error = raised
            except Exception as raised:  # a defect: the stream shall not stand still without a word
                log.exception("a source could not be prepared")
                error = SonomimeError(f"a source could not be prepared: {raised!r}")
            with self._change:
                self._busy -= 1
                self._ready, self._error = pair, error
                if pair is None:
                    self._spare = renderer
                self._change.notify_all()
            wanted.answer("ok" if pair is not None else str(error or ENDED))

    def _usable(self, renderer: AnyRenderer | None) -> AnyRenderer:
        """A renderer that nothing is shown of: this one, unless it is lost, or one more."""
        if renderer is not None and not renderer.lost:
            return renderer
        there = [each for each in self._all if not each.lost]
        opened = there[0].another() if there else self._open()
        made = Renderer(opened) if isinstance(opened, Animator) else opened
        with self._change:
            for each in (each for each in self._all if each.lost):
                each.close()
            self._all = [*there, made]
            if self._stopped:
                made.stop()
        return made

    def _prepared(
        self, renderer: AnyRenderer, wanted: Wanted, still: Still, size: tuple[int, int]
    ) -> Pair:
        reference = None if self._template is not None else wanted.reference
        scene = Scene(
            still.picture, reference, wanted.landmarks, self._template, self._loop, size, self._warm
        )
        prepared = renderer.prepare(scene)
        if reference is not None and prepared.grid is not None:
            warn_of_outlines(still.picture.image, reference.image)
        return Pair(
            renderer, still, wanted.reference, wanted.landmarks, *prepared, size, wanted.still
        )

    def _size_of(self, image: Image) -> tuple[int, int]:
        """(width, height) of a source's frames: the largest that fits into the form."""
        (size, _), (height, width), chain = self.form_for(image), image.shape[:2], self._chain
        if image is self._first:
            return size
        size = fitted(width, height, *size)
        box = Letterbox.fit(width, height, chain.image.size)
        return made_size(box, size, chain) if chain.layers is not None else size


def _both(one: Callable[[str], None], other: Callable[[str], None]) -> Callable[[str], None]:
    def answer(text: str) -> None:
        one(text)
        other(text)

    return answer
