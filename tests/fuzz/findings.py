"""What goes wrong in a process that is sent damaged messages, and how they are sent."""

from __future__ import annotations

import faulthandler
import itertools
import json
import logging
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Self

from sonomime.runtime.live.openigtlink.message import (
    HEADER_BYTES,
)

from .messages import KINDS, MESSAGES, damaged, sound

LIMIT = 5.0  # seconds: what takes longer hangs
MEMORY = 32 << 20  # bytes that a process may have grown by
BATCH = 50  # cases between two looks at the whole


class Findings:
    """What went wrong in this process, for a test: ``failures.txt`` in a folder ends with "done" if
    all was tried; beside it are the bytes of cases that failed, and ``counts.json``.

    Errors that end a thread, or are only logged, are found too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.counts, self.case = folder, Counter[str](), ""
        self._file = open(folder / "failures.txt", "w", buffering=1)  # noqa: SIM115
        self._at = os.open(folder / "case.txt", os.O_WRONLY | os.O_CREAT)
        self._number = 0

    def __enter__(self) -> Self:
        faulthandler.register(signal.SIGALRM, chain=True)
        warnings.simplefilter("error")
        threading.excepthook = lambda hook: self.add(f"a thread has ended: {hook.exc_value!r}")
        sys.unraisablehook = lambda hook: self.add(f"{hook.err_msg}: {hook.exc_value!r}")
        handler = logging.Handler(logging.WARNING)
        handler.emit = self._logged  # type: ignore[method-assign]
        logger = logging.getLogger("sonomime")
        logger.propagate, logger.handlers = False, [handler]
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.add(f"the test itself: {error!r}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        (self.folder / "counts.json").write_text(json.dumps(self.counts))
        self._file.write("done")
        self._file.close()

    def at(self, case: str, seconds: float = LIMIT) -> None:
        """A case begins. If the next one does not within its time, the process ends and says where
        it hung, in native code too."""
        self.case = case
        os.pwrite(self._at, case.ljust(80).encode(), 0)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def add(self, what: str, case: str | None = None) -> None:
        case = self.case if case is None else case
        self._number += 1
        if self._number > 20:
            return
        told = what
        if case.rpartition(" ")[0] in KINDS:
            file = self.folder / f"{case.replace(' ', '-')}.bin"
            file.write_bytes(damaged(case))
            told += f"; its bytes are in {file}"
        self._file.write(f"{case}: {told}\n")

    def wait(self, what: str, true: Callable[[], object], case: str | None = None) -> None:
        """Until it is true; a finding if it is not within LIMIT."""
        end = time.monotonic() + LIMIT
        while not true():
            if time.monotonic() > end:
                return self.add(f"after {LIMIT} s not so: {what}", case)
            time.sleep(0.001)
        return None

    def grown_since(self, begin: int) -> None:
        """`begin`: what `resident` said."""
        self.counts["bytes grown"] = grown = resident() - begin
        if grown > MEMORY:
            self.add(f"the process has grown by {grown} bytes")

    def _logged(self, record: logging.LogRecord) -> None:
        self.counts[f"logged by {record.name}"] += 1
        if record.exc_info or record.levelno >= logging.ERROR:
            self.add(f"logged: {record.getMessage()}: {(record.exc_info or (None, None))[1]!r}")


def held() -> tuple[int, int]:
    """Threads, and open files, of this process."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def play(peer: socket.socket, case: str) -> tuple[bytes, bool]:
    """Send a case, all of it or a part, in pieces, and close in one of several ways.

    Returns:
        What was sent, and whether the other side has read it all and closed too.

    Raises:
        TimeoutError: it does not close.
    """
    random, data = Random(f"{case} ends"), damaged(case)
    way = random.choice(("whole", "whole", "whole", "cut", "cut", "reset", "stall"))
    if way != "whole":
        data = data[: random.randrange(len(data) + 1)]
    piece = random.choice((1, 57, 59, 1000, 1 << 20))
    peer.settimeout(LIMIT)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with peer:
        try:
            edges = [*range(0, min(len(data), 100 * piece), piece), len(data)]
            for first, last in itertools.pairwise(edges):
                peer.sendall(data[first:last])
            if way in ("whole", "cut"):
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass
            elif way == "stall":
                time.sleep(random.uniform(0, 0.03))
        except TimeoutError:
            raise
        except OSError:
            pass  # closed, for what came before
        if way == "reset":
            reset(peer)
    return data, way in ("whole", "cut")


def mixed(count: int) -> list[str]:
    """Cases: half of them streams of several messages."""
    random = Random(0)
    kinds = (random.choice(("stream", random.choice(MESSAGES))) for _ in range(count))
    return [f"{kind} {number}" for number, kind in enumerate(kinds)]


def reset(peer: socket.socket) -> None:
    """Close without a farewell."""
    with suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def announcement(size: int) -> bytes:
    """The first hundred bytes of a message of so many, or so it says."""
    whole = bytearray(sound("grey 2")[:HEADER_BYTES])
    struct.pack_into(">Q", whole, 42, size)
    return bytes(whole) + bytes(100)
