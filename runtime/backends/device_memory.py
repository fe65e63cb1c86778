"""A bundle's tensors in a device's memory, wired by name, and the host's side of a few of them."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.manifest import DRIVING_FRAME, Chain
from .base import Views, boundary
from .cuda import Device


class DeviceMemory:
    """One block on the device for all tensors, and one pinned block for the boundary tensors.

    The boundary tensors come first and have the same offsets in both blocks. Everything is zero at
    first, recurrent states included.
    """

    def __init__(self, device: Device, chain: Chain, stream: int, release: ExitStack) -> None:
        """Allocate, or raise a DeviceError; `release` frees it again."""
        self._device, self._stream, self._tensors = device, stream, chain.tensors()
        outer = boundary(chain)
        # Settings lie beside the driving frame, so that all inputs of a frame go up in one copy.
        settings = chain.settings()
        self._offsets: dict[str, int] = {}
        self._sizes = {
            name: math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
            for name, tensor in self._tensors.items()
        }
        end = shared = 0
        for name in dict.fromkeys([*settings, DRIVING_FRAME, *outer, *self._tensors]):
            self._offsets[name] = end
            # TensorRT asks for addresses that are multiples of 256.
            end += -(-self._sizes[name] // 256) * 256
            shared = end if name in outer else shared
        self._base = device.malloc(end, release)
        self._pinned = device.pinned(shared, release)
        self._pinned[...] = 0
        device.clear(self._base, end, stream)
        self.views = Views()
        """The pinned memory of the boundary tensors."""
        for name, tensor in outer.items():
            raw = self._pinned[self._offsets[name] :][: self._sizes[name]]
            self.views[name] = raw.view(tensor.dtype).reshape(tensor.shape)
        ends = [self._offsets[name] + self._sizes[name] for name in (*settings, DRIVING_FRAME)]
        # What goes up with a frame: all of it, or, without the driving frame, the settings.
        self._inputs = {True: ends[-1], False: ends[-2] if settings else 0}

    def address(self, tensor: str) -> int:
        """Where a tensor lies on the device."""
        return self._base + self._offsets[tensor]

    def upload(self, tensor: str) -> None:
        """Send a boundary tensor up, in stream order."""
        self._device.upload(self.address(tensor), self.views[tensor], self._stream)

    def upload_inputs(self, with_driving_frame: bool) -> None:
        """Send all inputs of a frame up, in one copy; the driving frame may be there already."""
        if end := self._inputs[with_driving_frame]:
            self._device.upload(self._base, self._pinned[:end], self._stream)

    def download(self, tensor: str) -> None:
        """Bring a boundary tensor down, in stream order."""
        self._device.download(self.views[tensor], self.address(tensor), self._stream)

    def copy(self, source: str, target: str) -> None:
        """One tensor onto another, in stream order."""
        places = self.address(target), self.address(source)
        self._device.copy(*places, self._sizes[source], self._stream)

    def read(self, tensor: str) -> NDArray[Any]:
        """A copy of what the device holds; waits for the stream."""
        value = self._empty(tensor)
        self._device.download(value, self.address(tensor), self._stream)
        self._device.synchronise(self._stream)
        return value

    def write(self, tensor: str, value: ArrayLike) -> None:
        """Set what the device holds; waits for the stream, since `value` is pageable memory."""
        whole = self._empty(tensor)
        whole[...] = value
        self._device.upload(self.address(tensor), whole, self._stream)
        self._device.synchronise(self._stream)

    def _empty(self, tensor: str) -> NDArray[Any]:
        return np.empty(self._tensors[tensor].shape, self._tensors[tensor].dtype)
