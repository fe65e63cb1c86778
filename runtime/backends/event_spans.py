"""The time of each stage on the device, read only on demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from .cuda import Device
from .cuda_errors import DeviceError


class EventSpans(Mapping[str, float]):
    """Seconds between neighbouring events, one more than there are names; 0 before any frame.

    Asking CUDA costs about as much as launching a frame, so the frame itself never asks.
    """

    def __init__(self, device: Device, names: Sequence[str]) -> None:
        self._device = device
        self.events: Sequence[int] = ()
        self._seconds = dict.fromkeys(names, 0.0)
        self._stale = False

    def passed(self) -> None:
        """A frame is done: all events have passed again."""
        self._stale = True

    def freeze(self) -> None:
        """Read the times once more, since the events are about to be destroyed."""
        self._read()
        self._stale = False

    def _read(self) -> dict[str, float]:
        if self._stale:
            try:
                # The garbage collector may ask during a capture, and must not spoil it.
                with self._device.current(freeing=True):
                    found = [self._device.elapsed(*pair) for pair in pairwise(self.events)]
            except DeviceError:  # another frame has begun, or the GPU is lost: the last times stay
                return self._seconds
            self._stale = False
            self._seconds = dict(zip(self._seconds, found, strict=True))
        return self._seconds

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seconds)

    def __len__(self) -> int:
        return len(self._seconds)
