"""Where a stream's frames go. An outlet never delays the stream, and one that breaks does not end
it while there are others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeAlias

from ..media.mark import metadata
from ..sinks.open_sink import open_sink
from ..support.errors import SonomimeError
from .showing import Shown
from .slot import Slot

log = logging.getLogger("sonomime")

Writer: TypeAlias = Callable[[Shown], AbstractContextManager[Callable[[Shown], object]]]
"""Opens an outlet for frames like the first one, which it is given; then takes each frame."""


class Outlet(Protocol):
    """Where frames go. `name`: for people; `show` takes a frame, and may raise SonomimeError, after
    which it gets no more; `dropped`: how many frames were replaced by newer ones; `close` finishes
    what is written, and may raise too."""

    name: str

    def show(self, shown: Shown) -> None: ...

    def dropped(self) -> int: ...

    def close(self) -> None: ...


class Outlets:
    """Shows frames to several outlets. One that fails is left out, and the others go on."""

    def __init__(self, outlets: Sequence[Outlet]) -> None:
        self._left = list(outlets)
        self.errors: list[SonomimeError] = []  # of those that failed

    def add(self, outlet: Outlet) -> None:
        """Show frames to another one too, from the next on; from any thread."""
        self._left = [*self._left, outlet]

    def remove(self, outlet: Outlet) -> None:
        """Finish one; from any thread. Nothing if it has failed.

        Raises:
            SonomimeError: it could not be finished.
        """
        if outlet in self._left:
            self._left = [each for each in self._left if each is not outlet]
            outlet.close()

    def show(self, shown: Shown) -> None:
        """
        Raises:
            SonomimeError: the last outlet has failed.
        """
        for outlet in self._left:
            try:
                outlet.show(shown)
            except SonomimeError as error:
                self._left = [each for each in self._left if each is not outlet]
                self._failed(outlet, error)
                if not self._left:
                    raise

    def close(self) -> None:
        """Finish all; errors are in `errors`."""
        for outlet in self._left:
            try:
                outlet.close()
            except SonomimeError as error:
                self._failed(outlet, error)

    def _failed(self, outlet: Outlet, error: SonomimeError) -> None:
        log.error("%s: %s", outlet.name, error)
        self.errors.append(error)
        with suppress(SonomimeError):
            outlet.close()


class ThreadedOutlet:
    """Gives frames to a writer in a thread of its own, opened with the first of them."""

    def __init__(self, name: str, open_writer: Writer, waits: bool = False) -> None:
        """`waits`: `show` waits until the frame before has been taken; if not, the newest wins."""
        self.name = name
        self._error: SonomimeError | None = None
        self._open, self._waits = open_writer, waits
        self._slot: Slot[Shown] = Slot()
        self._thread = threading.Thread(target=self._run, name=f"outlet {name}", daemon=True)
        self._thread.start()

    def show(self, shown: Shown) -> None:
        self._check()
        if self._waits:
            self._slot.hand(shown)
        else:
            self._slot.put(shown)

    def dropped(self) -> int:
        return self._slot.dropped[""]

    def close(self) -> None:
        self._slot.close()
        self._thread.join()
        self._check()

    def _check(self) -> None:
        """Raise what went wrong in the thread, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            if (first := self._slot.take()) is None:
                return
            with self._open(first) as write:
                write(first)
                for shown in self._slot:
                    write(shown)
        except SonomimeError as error:
            self._error = error
        except Exception as error:  # a defect: the stream goes on, and says so
            log.exception("%s has ended", self.name)
            self._error = SonomimeError(f"{self.name} has ended: {error!r}")
        finally:
            self._slot.close()


def recorder(path: Path, rate: float | None, burned_in: bool | None, waits: bool) -> ThreadedOutlet:
    """Records what is shown from the first synthesized frame on, in any format of `open_sink`;
    NAME.mp4 and NAME.mkv grow as NAME.part.

    Args:
        rate: frames a second, where they are known.
        burned_in: as for `open_sink`.
    """

    @contextmanager
    def opened(first: Shown) -> Iterator[Callable[[Shown], object]]:
        height, width = first.image.shape[:2]
        channels = 3 if first.image.ndim == 3 else 1
        with open_sink(
            path, (width, height), channels, rate, metadata(), first.spacing, burned_in, grows=True
        ) as sink:
            yield lambda shown: sink.write(shown.image, shown.timestamp)

    return _Recorder(str(path), opened, waits)


class _Recorder(ThreadedOutlet):
    def show(self, shown: Shown) -> None:
        if shown.state != "warming up":
            super().show(shown)
