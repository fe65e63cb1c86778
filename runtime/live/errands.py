"""What other threads want a stream's thread to do: little at a time, so that no frame waits."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from typing import TypeAlias

from ..support.errors import SonomimeError, StreamError

log = logging.getLogger("sonomime")

MOST, AT_ONCE = 64, 8  # that wait; that are done between two frames

ENDED = "the stream has ended"

Answer: TypeAlias = Callable[[str], None]
"""Gets "ok", or what was wrong."""


def nobody(text: str) -> None:
    """Nobody waits for the answer."""


class Errands:
    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Callable[[], None], Answer]] = queue.Queue(MOST)

    def put(self, do: Callable[[], None], answer: Answer) -> None:
        """From any thread; `do` answers by itself, unless it raises.

        Raises:
            StreamError: too many wait.
        """
        try:
            self._waiting.put_nowait((do, answer))
        except queue.Full:
            what = f"{MOST} orders wait: this one is not taken"
            raise StreamError(what, "give orders more slowly") from None

    def run(self) -> None:
        """Do some of them."""
        for _ in range(AT_ONCE):
            try:
                do, answer = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                do()
            except SonomimeError as error:
                log.info("%s", error)
                answer(f"{error} ({error.hint})" if error.hint else str(error))

    def end(self) -> None:
        """Nobody shall wait for an answer that will not come."""
        while True:
            try:
                _, answer = self._waiting.get_nowait()
            except queue.Empty:
                return
            answer(ENDED)
