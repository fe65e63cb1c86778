"""Where a stream's frames go. An outlet never delays the stream, and one that breaks does not end
it while there are others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

from ..media.mark import metadata
from ..sinks.open_sink import check_place, open_sink
from ..support.errors import ConfigError, OutputError, SonomimeError
from .showing import Shown
from .slot import Slot

log = logging.getLogger("sonomime")

Writer: TypeAlias = Callable[[Shown], AbstractContextManager[Callable[[Shown], object]]]
"""Opens an outlet for frames like the first one, which it is given; then takes each frame."""


class Outlet(Protocol):
    """Where frames go. `name`: for people; `show` takes a frame, and may raise SonomimeError, after
    which it gets no more; `end` takes the last, black one; `dropped`: how many frames were replaced
    by newer ones; `close` finishes what is written, and may raise too."""

    name: str

    def show(self, shown: Shown) -> None: ...

    def end(self, shown: Shown) -> None: ...

    def dropped(self) -> int: ...

    def close(self) -> None: ...


class Outlets:
    """Shows frames to several outlets. One that fails is left out, and the others go on."""

    def __init__(self, outlets: Sequence[Outlet]) -> None:
        self._left = list(outlets)
        self._change = threading.Lock()
        self.errors: list[SonomimeError] = []  # of those that failed

    def add(self, outlet: Outlet) -> None:
        """Show frames to another one too, from the next on; from any thread."""
        with self._change:
            self._left = [*self._left, outlet]

    def remove(self, outlet: Outlet) -> None:
        """Finish one; from any thread. Nothing if it has failed.

        Raises:
            SonomimeError: it could not be finished.
        """
        if self._leave_out(outlet):
            outlet.close()

    def show(self, shown: Shown) -> None:
        """
        Raises:
            SonomimeError: the last outlet has failed.
        """
        for outlet in self._left:
            self._try(outlet, partial(outlet.show, shown))
        if self.errors and not self._left:
            raise self.errors[-1]

    def end(self, shown: Shown) -> None:
        """Show the last frame; errors are in `errors`."""
        for outlet in self._left:
            self._try(outlet, partial(outlet.end, shown))

    def close(self) -> None:
        """Finish all; errors are in `errors`."""
        for outlet in self._left:
            self._try(outlet, outlet.close)

    def _try(self, outlet: Outlet, do: Callable[[], object]) -> None:
        """Leave an outlet out that fails."""
        try:
            do()
            return
        except SonomimeError as raised:
            error = raised
        except Exception as raised:  # a defect of that outlet alone
            log.debug("%s has failed", outlet.name, exc_info=True)
            error = SonomimeError(f"{outlet.name} has failed: {raised!r}")
        self._leave_out(outlet)
        log.error("%s: %s", outlet.name, error)
        self.errors.append(error)
        with suppress(Exception):
            outlet.close()

    def _leave_out(self, outlet: Outlet) -> bool:
        """Whether it was there."""
        with self._change:
            was_there = outlet in self._left
            self._left = [each for each in self._left if each is not outlet]
        return was_there


class ThreadedOutlet:
    """Gives frames to a writer in a thread of its own, opened with the first of them."""

    def __init__(self, name: str, open_writer: Writer, waits: bool = False) -> None:
        """`waits`: `show` waits until the frame before has been taken; if not, the newest wins."""
        self.name = name
        self.error: SonomimeError | None = None  # what ended it
        self.begun = threading.Event()  # the writer is open, or could not be opened
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

    def end(self, shown: Shown) -> None:
        """What is written ends with the frame before."""

    def dropped(self) -> int:
        return self._slot.dropped[""]

    def close(self) -> None:
        self._slot.close()
        self._thread.join()
        self._check()

    def _check(self) -> None:
        """Raise what went wrong in the thread."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            if (first := self._slot.take()) is None:
                return
            with self._open(first) as write:
                self.begun.set()
                write(first)
                for shown in self._slot:
                    write(shown)
        except SonomimeError as error:
            self.error = error
        except Exception as error:  # a defect: the stream goes on, and says so
            log.exception("%s has ended", self.name)
            self.error = SonomimeError(f"{self.name} has ended: {error!r}")
        finally:
            self._slot.close()
            self.begun.set()


def check_recording(path: Path) -> None:
    """Refuse what cannot be recorded to, before there is a frame.

    Raises:
        ConfigError: a suffix that has no writer, or one of a single picture.
        OutputError: something is there already; the place cannot be written.
    """
    check_place(path, grows=True)
    if path.suffix.lower() == ".png":
        hint = "give NAME.mp4, or a name without a suffix for a folder of pictures"
        raise ConfigError(f"{path} holds one frame, and a stream has many", hint)
    if path.exists() and (path.suffix or not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} is there already", "give another name")


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
    _has_picture = False

    def show(self, shown: Shown) -> None:
        self._has_picture |= shown.state in ("live", "doubtful")
        if self._has_picture:
            super().show(shown)

    def close(self) -> None:
        super().close()
        if not self._has_picture:
            raise OutputError(f"nothing to write to {self.name}: there were no frames")
