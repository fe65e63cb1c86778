"""A stream as a page or program sees it: how it is, what it shows, what it can be asked to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..debug_picture import draw_alignment
from ..landmarks import Given
from ..media.frames import Image
from ..support.errors import ConfigError, InputError
from .orders import parse_order
from .stream import Stream

WAIT = 10.0  # seconds for an answer


class Control:
    """Controls a stream that was started elsewhere. Methods may be called from any thread, and
    raise SonomimeError for what cannot be done."""

    fixed = True

    def __init__(self, stream: Stream | None, settings: dict[str, Any] | None) -> None:
        """`settings`: what the stream was started with, for people."""
        self.stream, self._settings = stream, settings

    def state(self) -> dict[str, Any]:
        """For the page, as docs/live.md says."""
        stream, metrics = self.stream, None
        if stream is not None:
            metrics = stream.metrics.snapshot()
        pair = stream.pair if stream is not None else None
        settings = self._settings
        if stream is not None and settings is not None:
            settings = settings | stream.settings
            if pair is not None and pair.still.name:
                settings["source"] = pair.still.name
        return {
            "rate": None if stream is None else round(stream.rate, 3),
            "running": stream is not None and not stream.ended,
            "fixed": self.fixed,
            "problem": "" if stream is None or stream.error is None else str(stream.error),
            "library": self.library(),
            "settings": settings,
            "metrics": metrics,
            "recording": None,
            "paused": stream is not None and stream.paused,
            "picture": 0 if stream is None else stream.pair_number,
            "alignment": "" if pair is None else pair.alignment.said,
            "template_landmarks": None if stream is None else stream.template_landmarks,
        }

    def library(self) -> dict[str, Any]:
        """Names of what can be taken."""
        names = [] if self.stream is None else self.stream.source_names()
        return {"sources": names, "driving": [], "templates": [], "motions": []}

    def order(self, text: str) -> str:
        """Give an order and wait for the answer: "ok", "pending" after WAIT, or what was wrong."""
        parse_order(text)
        return self._answered(lambda answer: self._running().order(text, answer))

    def align(
        self, source: Mapping[str, Any], reference: Mapping[str, Any], picture: int | None
    ) -> str:
        """Align by places, (x, y) in pixels by name; without any, by itself again. `picture`: the
        state's, when they were placed; if it has changed since, that is the answer.

        Raises:
            InputError: places that cannot be.
        """
        given = Given(_places(source, "source"), _places(reference, "reference"))
        landmarks = given if given.source or given.reference else "auto"
        return self._answered(
            lambda answer: self._running().take_landmarks(landmarks, picture, answer)
        )

    def picture(self, name: str) -> Image | None:
        """The `source`, `reference` or `alignment` that is shown now; None if there is none."""
        stream = self.stream
        pair = stream.pair if stream is not None else None
        if stream is None or pair is None:
            return None
        source = pair.still.picture.image
        if name == "source":
            return source
        if pair.reference is None:
            return None
        if name == "reference":
            return pair.reference.image
        if pair.grid is None:
            return None
        alignment, size = pair.alignment, stream.chain.image.size
        pictures = source, pair.reference.image
        return draw_alignment(pictures, pair.grid, alignment.points, alignment.names, size)

    def start(self, wanted: Mapping[str, Any]) -> None:
        raise _not_here()

    def stop(self) -> None:
        raise _not_here()

    def record(self, name: str | None) -> None:
        raise _not_here()

    def take_upload(self, kind: str, name: str, data: Callable[[int], bytes]) -> None:
        raise _not_here()

    def _running(self) -> Stream:
        if self.stream is None or self.stream.ended:
            raise ConfigError("nothing runs", "start a stream first")
        return self.stream

    @staticmethod
    def _answered(ask: Callable[[Callable[[str], None]], None]) -> str:
        answers, there = list[str](), threading.Event()

        def answer(text: str) -> None:
            answers.append(text)
            there.set()

        ask(answer)
        return answers[0] if there.wait(WAIT) else "pending"


def _not_here() -> ConfigError:
    hint = "end it there; `sonomime serve` starts and stops streams by its page"
    return ConfigError("this stream was started from a terminal", hint)


def _places(given: Any, what: str) -> dict[str, tuple[float, float]]:
    """(x, y) by name, as numbers."""
    try:
        found = {str(name): (float(x), float(y)) for name, (x, y) in given.items()}
    except (TypeError, ValueError, AttributeError):
        hint = 'give {"name": [x, y]}'
        raise InputError(f"the landmarks of the {what} cannot be read", hint) from None
    if len(found) > 100 or not all(abs(x) < 1e6 and abs(y) < 1e6 for x, y in found.values()):
        raise InputError(f"landmarks of the {what} cannot be used", "give at most 100, in pixels")
    return found
