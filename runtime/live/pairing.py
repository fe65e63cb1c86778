"""Which source, reference and landmarks a stream wants, and the pair of them that it shows.

In the stream's thread. What is wanted is prepared beside the stream (`pairs.py`); what cannot be
prepared is given up, and what is shown stays.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..landmarks import Landmarks, Picture
from ..support.errors import InputError, SonomimeError
from .choice import Choice, Read
from .errands import ENDED, Answer, nobody
from .pairs import REPLACED, Pair, Pairs, Still, Wanted
from .renderer import RendererLost
from .retry import Retry
from .showing import LOST

log = logging.getLogger("sonomime")

_NUMBERS = itertools.count(1)


class Pairing:
    """
    Attributes:
        pair: what is shown; None at first.
        number: of the pair, among those of all streams of this process.
        reference: what is wanted; None: none is there yet, or a template has its own.
        wants_reference: whether the next driving frame shall be the reference.
        by_hand: whether the landmarks of the pair that was wanted last are places.
        losses: renderers that were lost; replace_at: when to `replace` the one that is lost.
    """

    def __init__(
        self, pairs: Pairs, choice: Choice, reference: Picture | None, wants_reference: bool,
        landmarks: Landmarks,
    ) -> None:  # fmt: skip
        self._pairs, self._choice, self._landmarks = pairs, choice, landmarks
        self.reference, self.wants_reference = reference, wants_reference
        self.pair: Pair | None = None
        self.number = 0
        self.by_hand = False
        self.losses, self.replace_at = 0, 0.0
        self._replaced: Pair | None = None
        self._retry = Retry()
        self._sound = choice.still  # reads the source of `pair`, or the first one
        self._later: Answer = nobody  # who waits for the first pair

    def begin(self) -> None:
        """Prepare the first pair, if all that it takes is known."""
        if not self.wants_reference and self._choice.still is not None:
            self._prepare()

    def end(self) -> None:
        """Nobody shall wait for an answer that will not come."""
        self._later(ENDED)

    def offer(self, frame: Picture) -> None:
        """Take a driving frame as the reference, if one is wanted."""
        if self.wants_reference and self._choice.still is not None:
            self.wants_reference = False
            self.reference = frame
            answer, self._later = self._later, nobody
            self._prepare(answer)

    def take_still(self, still: Read, answer: Answer = nobody) -> None:
        """Want another source."""
        self._choice.still = still
        if self.wants_reference and self.reference is None:
            self._later(REPLACED)
            self._later = answer  # it is prepared with the first driving frame
        else:
            self._prepare(answer)

    def take_landmarks(self, landmarks: Landmarks, number: int | None, answer: Answer) -> None:
        """Want these landmarks for what is shown.

        Raises:
            InputError: another pair is wanted meanwhile, or `number` is not this pair's.
        """
        changed = number not in (None, self.number) or self.wants_reference
        if self.pair is None or changed or self._pairs.busy:
            hint = "place the landmarks in the pictures that are shown now"
            raise InputError("source or reference have changed meanwhile", hint)
        self._landmarks = landmarks
        self._prepare(answer)

    def swap(self, settings: Mapping[str, Any], wait: bool) -> bool:
        """Take over the pair that has become ready; whether there was one.

        Args:
            settings: for `Animator.adjust`.
            wait: until nothing is wanted any more.

        Raises:
            SonomimeError: the first pair could not be prepared.
        """
        taken = False
        while True:
            try:
                pair = self._pairs.swap(self.pair, wait)
            except SonomimeError as error:
                self._go_back(error)
                pair = None
            if pair is not None:
                with suppress(RendererLost):  # the loop sees that, and who is next is adjusted
                    pair.renderer.adjust(**settings)  # they may have changed meanwhile
                self.pair, self.number = pair, next(_NUMBERS)
                self._retry, self.replace_at = Retry(), 0.0
                self._sound = reads(pair.still)
                if self._choice.still is pair.read:
                    self._choice.still = self._sound  # not read from its file again
                taken = True
            if not (wait and self._pairs.busy):
                return taken

    @property
    def is_lost(self) -> bool:
        """Whether what makes the frames is gone."""
        return self.pair is not None and self.pair.renderer.lost

    def replace(self) -> float:
        """Want what is shown again, with another renderer, unless something else is wanted, which
        gets one too. Returns seconds to wait for it; not sooner than then, do this again."""
        assert self.pair is not None
        if self.pair is not self._replaced:
            self._replaced = self.pair
            self.losses += 1
            log.warning("%s: %s", self.pair.still.name, LOST)
        if not self._pairs.busy:
            still, reference, landmarks = self.pair.still, self.pair.reference, self.pair.landmarks
            self._pairs.want(Wanted(reads(still), reference, landmarks, nobody))
        pause = self._retry.pause()
        self.replace_at = time.perf_counter() + pause
        return pause

    def _prepare(self, answer: Answer = nobody) -> None:
        """Want a pair of the source and reference that were asked for last."""
        assert self._choice.still is not None
        landmarks = self._landmarks
        self.by_hand = not isinstance(landmarks, str)
        if self.by_hand:
            self._landmarks = "auto"  # places are those of this pair alone
        self._pairs.want(Wanted(self._choice.still, self.reference, landmarks, answer))

    def _go_back(self, error: SonomimeError) -> None:
        """What was wanted could not be prepared: want what is sound, unless another is wanted by
        now."""
        if self._pairs.busy:
            log.warning("%s", error)
            return
        shown, was_source = self.pair, self._choice.still is not self._sound
        if shown is None and (self._sound is None or not was_source):
            raise error
        log.warning("the picture stays as it was: %s", error)
        self._choice.still = self._sound
        if was_source and (shown is None or self.reference is not shown.reference):
            self._prepare()  # the reference may be sound
        elif shown is not None:
            self.reference = shown.reference


def reads(still: Still) -> Read:
    """What gives a picture that is there already."""
    return lambda: still
