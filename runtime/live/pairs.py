"""Source and reference are prepared beside the stream, and take over when they are ready.

To take a new source or reference, the model encodes it and aligns the two, which takes several
frames' time. So a second Animator does that in a thread of its own, while the first goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..animator import Animator
from ..compose import Size, fitted
from ..driving import DrivingTemplate
from ..landmarks import Picture, align_pair
from ..media.frames import Image, resize
from ..player import Player
from ..still import made_size
from ..support.errors import SonomimeError
from .feed import Arrival
from .slot import Slot

log = logging.getLogger("sonomime")


class Still(NamedTuple):
    """A source picture, its name, and (x, y) millimetres from pixel to pixel, if known."""

    picture: Picture
    name: str
    spacing: tuple[float, float] | None = None


class Wanted(NamedTuple):
    """What to prepare: a source, which is read then; a reference frame, None for a template, which
    has its own; landmarks, as for `align_pair`."""

    still: Callable[[], Still]
    reference: Picture | None
    landmarks: str | Path


class Pair(NamedTuple):
    """An Animator with its source and reference. alignment: by what the two are aligned."""

    animator: Animator
    still: Still
    alignment: str
    player: Player | None
    size: tuple[int, int]

    def frame(self, arrival: Arrival, timestamp: float) -> Image:
        """The synthesized frame, unmarked, of `size`; errors as of `Animator.animate`."""
        animator = self.animator
        composes = animator.session.chain.layers is not None
        size = self.size if composes else None
        if self.player is not None:
            made = self.player.frame(arrival.timestamp, size, loop=True)
        else:
            made = animator.animate(arrival.image, timestamp, size=size)
        return made if composes else resize(animator.letterbox.inside(made), *self.size)


class Pairs:
    """Prepares pairs: `want` one, and `swap` when it is there."""

    def __init__(
        self, open_animator: Callable[[], Animator], template: DrivingTemplate | None,
        size: Size, warm: bool,
    ) -> None:  # fmt: skip
        """
        Args:
            open_animator: opens an Animator; called once, and once more for the second pair.
            template: the driving template, if it is one.
            size: of the first pair's frames; those of later ones fit into it.
            warm: make a first frame in advance, so that the first one shown is not slow.
        """
        self._open, self._template = open_animator, template
        self._asked, self._warm = size, warm
        self.size: tuple[int, int] | None = None
        self._wanted: Slot[Wanted] = Slot()
        self._change = threading.Condition()
        self._ready: Pair | None = None
        self._spare: Animator | None = None
        self._busy = 0  # wanted, and neither ready nor failed
        self._error: SonomimeError | None = None
        self._all: list[Animator] = []
        self._thread = threading.Thread(target=self._work, name="pairs", daemon=True)
        self._thread.start()

    def want(self, wanted: Wanted) -> None:
        """Prepare this, and nothing that was wanted before and is not ready. Never waits."""
        with self._change:
            self._busy += 1
        self._wanted.put(wanted)

    def swap(self, shown: Pair | None, wait: bool = False) -> Pair | None:
        """The pair that has become ready, or None. The Animator of the one `shown` until now is
        then used for the next.

        Args:
            wait: wait until what was wanted is ready.

        Raises:
            SonomimeError: what was wanted last could not be prepared; raised once.
        """
        with self._change:
            if wait:
                self._change.wait_for(lambda: not self._busy)
            error, self._error = self._error, None
            if error is not None:
                raise error
            pair, self._ready = self._ready, None
            if pair is not None and shown is not None:
                self._spare = shown.animator
            return pair

    def close(self) -> None:
        """Wait for the thread, and close the Animators."""
        self._wanted.close()
        self._thread.join()
        for animator in self._all:
            animator.close()

    def _work(self) -> None:
        for wanted in self._wanted:
            pair, error = None, None
            with self._change:
                dropped, self._wanted.dropped = self._wanted.dropped, 0
                if self._ready is not None:  # never shown
                    self._spare, self._ready = self._ready.animator, None
                animator, self._spare = self._spare, None
            try:
                if animator is None:
                    animator = self._open()
                    self._all.append(animator)
                pair = self._prepared(animator, wanted)
            except SonomimeError as raised:
                error = raised
            except Exception as raised:  # a defect: the stream shall not stand still without a word
                log.exception("a source could not be prepared")
                error = SonomimeError(f"a source could not be prepared: {raised!r}")
            with self._change:
                self._busy -= 1 + dropped
                self._ready, self._error = pair, error
                if pair is None:
                    self._spare = animator
                self._change.notify_all()

    def _prepared(self, animator: Animator, wanted: Wanted) -> Pair:
        still = wanted.still()
        animator.reset()
        animator.set_source(still.picture.image)
        size = self._size_of(animator)
        player, said = None, ""
        if self._template is not None:
            player, said = self._template.player(animator, still.picture, wanted.landmarks)
        elif (reference := wanted.reference) is not None:
            animator.set_reference(reference.image)
            if self._warm:
                composed = size if animator.session.chain.layers is not None else None
                animator.animate(reference.image, size=composed)
                animator.set_reference(reference.image)  # the clock and smoothing start again
            if animator.session.can_align:
                said = align_pair(animator, wanted.landmarks, still.picture, reference).said
        return Pair(animator, still, said, player, size)

    def _size_of(self, animator: Animator) -> tuple[int, int]:
        """As asked for the first source; of later ones the largest that fits into that."""
        box, chain = animator.letterbox, animator.session.chain
        if self.size is None:
            self.size = made_size(box, self._asked, chain)
            return self.size
        size = fitted(box.width, box.height, *self.size)
        return made_size(box, size, chain) if chain.layers is not None else size
