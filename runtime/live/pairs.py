"""Source and reference are prepared beside the stream, and take over when they are ready.

To take a new source or reference, the model encodes it and aligns the two, which takes several
frames' time. So a second Animator does that in a thread of its own, while the first goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

from numpy.typing import NDArray

from ..animator import Animator
from ..bundle.manifest import ALIGNMENT, Chain
from ..compose import Size, fitted
from ..driving import DrivingTemplate
from ..landmarks import Alignment, Landmarks, Picture, align_pair
from ..media.frames import Image, Letterbox, check_image, resize
from ..outlines import warn_of_outlines
from ..player import Player
from ..still import made_size
from ..support.errors import SonomimeError
from .errands import ENDED
from .feed import Arrival
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
    """An Animator with its source and reference. alignment: by what the two are aligned; grid,
    (1, rows, columns, 2): where in the reference cells of the source are, None where the reference
    is no picture or nothing is aligned; read: what read the source."""

    animator: Animator
    still: Still
    reference: Picture | None
    alignment: Alignment
    grid: NDArray[Any] | None
    player: Player | None
    size: tuple[int, int]
    loop: bool
    read: Callable[[], Still]

    @property
    def spacing(self) -> tuple[float, float] | None:
        """(x, y) millimetres from pixel to pixel of the frames, if they are known."""
        if self.still.spacing is None:
            return None
        height, width = self.still.picture.image.shape[:2]
        (x, y), (wide, high) = self.still.spacing, self.size
        return x * width / wide, y * height / high

    def frame(self, arrival: Arrival, timestamp: float) -> Image:
        """The synthesized frame, unmarked, of `size`; errors as of `Animator.animate`."""
        animator = self.animator
        composes = animator.session.chain.layers is not None
        size = self.size if composes else None
        if self.player is not None:
            made = self.player.frame(arrival.timestamp, size, self.loop)
        else:
            made = animator.animate(arrival.image, timestamp, size=size)
        return made if composes else resize(animator.letterbox.inside(made), *self.size)


class Pairs:
    """Prepares pairs: `want` one, and `swap` when it is there."""

    def __init__(
        self, chain: Chain, open_animator: Callable[[], Animator], size: Size,
        template: DrivingTemplate | None, loop: bool, warm: bool,
    ) -> None:  # fmt: skip
        """
        Args:
            open_animator: opens an Animator of this chain; the second pair gets `another`.
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
        self._spare: Animator | None = None
        self._closed = False
        self._busy = 0  # wanted, and neither ready nor failed
        self._error: SonomimeError | None = None
        self._all: list[Animator] = []
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
        """The pair that has become ready, or None. The Animator of the one `shown` until now is
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
                self._spare = shown.animator
            return pair

    def close(self) -> None:
        """Wait for the thread, and close the Animators."""
        self._wanted.close()
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread.ident:
            self._thread.join()
        for animator in self._all:
            animator.close()

    def _work(self) -> None:
        for wanted in self._wanted:
            pair, error = None, None
            with self._change:
                # One that is ready is taken soon; it shall not be lost if this one fails.
                self._change.wait_for(lambda: self._ready is None or self._closed)
                if self._closed:
                    wanted.answer(ENDED)
                    continue
                animator, self._spare = self._spare, None
            try:
                still = wanted.still()
                size = self._size_of(still.picture.image)
                if animator is None:
                    animator = self._all[0].another() if self._all else self._open()
                    self._all.append(animator)
                pair = self._prepared(animator, wanted, still, size)
            except SonomimeError as raised:
                error = raised
            except Exception as raised:  # a defect: the stream shall not stand still without a word
                log.exception("a source could not be prepared")
                error = SonomimeError(f"a source could not be prepared: {raised!r}")
            with self._change:
                self._busy -= 1
                self._ready, self._error = pair, error
                if pair is None:
                    self._spare = animator
                self._change.notify_all()
            wanted.answer("ok" if error is None else str(error))

    def _prepared(
        self, animator: Animator, wanted: Wanted, still: Still, size: tuple[int, int]
    ) -> Pair:
        animator.reset()
        animator.set_source(still.picture.image)
        player, alignment, grid = None, Alignment(""), None
        composed = size if animator.session.chain.layers is not None else None
        if self._template is not None:
            # Aligned by the template's landmarks alone: there is no picture.
            player, said = self._template.player(animator, still.picture, wanted.landmarks)
            alignment = Alignment(said)
            if self._warm:
                player.frame(0.0, composed)
        elif (reference := wanted.reference) is not None:
            animator.set_reference(reference.image)
            if self._warm:
                animator.animate(reference.image, size=composed)
                animator.set_reference(reference.image)  # the clock and smoothing start again
            if animator.session.can_align:
                warn_of_outlines(still.picture.image, reference.image)
                alignment = align_pair(animator, wanted.landmarks, still.picture, reference)
                grid = animator.read(ALIGNMENT)
        return Pair(
            animator, still, wanted.reference, alignment, grid, player, size, self._loop,
            wanted.still,
        )  # fmt: skip

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
