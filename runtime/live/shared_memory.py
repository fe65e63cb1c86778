"""A stream's frames in shared memory, for other programs on the same machine.

A POSIX shared memory object with a header and SLOTS frames, all numbers little-endian. The frame
with number n is in slot n % SLOTS. Before its pixels are written, the slot's `number` becomes 0;
afterwards it becomes n + 1, and then so does `newest`. Whoever copies a frame looks at the slot's
number before and afterwards: if both are n + 1, the copy is whole. examples/shared_memory.h is the
same in C.
"""

from __future__ import annotations

import os
import struct
import threading
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from ..support.errors import StreamError
from .screen import STATES
from .showing import Shown

MAGIC = b"SONOMIME"
VERSION = 1
SLOTS = 4
# magic, version, slots, width, height, channels, bytes from slot to slot, newest
HEADER = struct.Struct("<8sIIIIIIQ")
NEWEST_AT = HEADER.size - 8
# number, seconds since 1970, state (as in STATES), whether the picture is synthetic
SLOT = struct.Struct("<QdII")
PIXELS_AT = 64  # in the object, and in a slot


class SharedMemoryOutlet:
    """Writes each frame at once. The object is made with the first one, and removed at the end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._memory: SharedMemory | None = None
        self._bytes = memoryview(b"")
        self._barrier = threading.Lock()

    def show(self, shown: Shown) -> None:
        """
        Raises:
            StreamError: there is an object of that name already, or no memory.
        """
        if self._memory is None:
            self._make(shown)
        at = PIXELS_AT + shown.number % SLOTS * self._step
        pixels = np.frombuffer(self._bytes, np.uint8, shown.image.size, at + PIXELS_AT)
        self._publish(at, 0)
        SLOT.pack_into(self._bytes, at, 0, shown.made_at, STATES.index(shown.state), 1)
        pixels[:] = shown.image.reshape(-1)
        self._publish(at, shown.number + 1)
        self._publish(NEWEST_AT, shown.number + 1)

    def end(self, shown: Shown) -> None:
        """Write the last frame."""
        self.show(shown)

    def dropped(self) -> int:
        """Nobody is known to read."""
        return 0

    def close(self) -> None:
        if self._memory is not None:
            self._bytes.release()
            self._memory.close()
            with suppress(FileNotFoundError):  # somebody has removed it
                self._memory.unlink()
            self._memory = None

    def _make(self, shown: Shown) -> None:
        height, width = shown.image.shape[:2]
        channels = 3 if shown.image.ndim == 3 else 1
        self._step = -(-(PIXELS_AT + shown.image.size) // 64) * 64
        size = PIXELS_AT + SLOTS * self._step
        with suppress(OSError):  # not Linux
            free = os.statvfs("/dev/shm")
            if size > free.f_bavail * free.f_frsize:  # writing there would end the process
                hint = "stop programs that use shared memory, or make /dev/shm larger"
                raise StreamError(f"shared memory lacks room for {size >> 20} MB", hint)
        try:
            memory = SharedMemory(self.name, create=True, size=size)
        except (OSError, ValueError) as error:
            hint = f"give another name, or remove /dev/shm/{self.name} if nobody uses it"
            raise StreamError(f"no shared memory {self.name!r}: {error}", hint) from error
        self._memory, self._bytes = memory, memoryview(memory.buf or b"")
        head = MAGIC, VERSION, SLOTS, width, height, channels, self._step, 0
        HEADER.pack_into(self._bytes, 0, *head)

    def _publish(self, at: int, number: int) -> None:
        """Store a number after all that was stored before, on any processor: a lock that is let go
        orders what comes before it, and taken again what comes after."""
        with self._barrier:
            pass
        with self._barrier:
            pass
        np.frombuffer(self._bytes, "<u8", 1, at)[0] = number
