"""Signals that end a process, streams that cannot take everything, packages that may be missing."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from .errors import BackendError


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: cleaned up after like Ctrl-C, with its own exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def make_streams_safe() -> None:
    """Make sure that printing never fails a run: what goes to a closed stream (`2>&-`) is dropped,
    and characters that the encoding lacks are escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the process ends
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and SIGHUP, so that half-written files are removed; a command
    may set its own handler."""
    came: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise Terminated(number)

    before: dict[int, Any] = {}
    try:
        with suppress(ValueError):  # not the main thread: signals are the caller's business
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    before[number] = signal.signal(number, terminate)
        yield
    except KeyboardInterrupt as error:
        if came and not isinstance(error, Terminated):  # native code raises one of its own
            raise Terminated(came[0]) from error
        raise
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def signal_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The signal that caused an error, if any: native code turns one into an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def import_or_explain(module: str, cure: str) -> Any:
    """The module. Ctrl-C and SIGTERM pass through, even if a package turned them into an error.

    Raises:
        BackendError: it cannot be imported; `cure` is the hint.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a package of another numpy raises ValueError, and so on
        if (interrupt := signal_behind(error)) is not None:
            raise interrupt from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(f"{module} cannot be imported: {reason}", cure) from error
