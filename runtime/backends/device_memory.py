"""The tensors of a bundle in a device's memory, wired by name, and the host's side of the few that
cross over."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.manifest import DRIVING_FRAME, Chain, Tensor
from .base import boundary, not_boundary
from .cuda import Device

DEVICE_ALIGNMENT = 256  # what TensorRT asks of a tensor's address


class DeviceMemory:
    """One block on the device for all tensors, and one pinned block for the boundary tensors.

    The boundary tensors come first and have the same offsets in both blocks. Everything is zero at
    first, a recurrent state among it.
    """

    def __init__(self, device: Device, chain: Chain, stream: int, release: ExitStack) -> None:
        """Allocate; what `release` is given frees it again.

        Raises:
            DeviceError: out of memory.
        """
        self._device = device
        self._stream = stream
        self._tensors = chain.tensors()
        outer = boundary(chain)
        # Settings lie beside the driving frame, so that all a frame takes goes up in one copy.
        settings = chain.settings()
        first = [*settings, DRIVING_FRAME]
        order = [*first, *(name for name in outer if name not in first)]
        order += [name for name in self._tensors if name not in outer]
        self._offsets: dict[str, int] = {}
        end = shared = 0
        for name in order:
            self._offsets[name] = end
            end += -(-size_of(self._tensors[name]) // DEVICE_ALIGNMENT) * DEVICE_ALIGNMENT
            shared = end if name in outer else shared
        self.size = end
        self._base = device.malloc(end)
        release.callback(device.free, self._base)
        self._pinned = device.pinned(shared)
        release.callback(device.free_pinned, self._pinned)
        self._pinned[...] = 0
        device.memset(self._base, 0, end, stream)
        self._views = {name: self._span(name, name).view(self._type(name)) for name in outer}
        self._views = {
            name: view.reshape(self._tensors[name].shape) for name, view in self._views.items()
        }
        # What goes up with a frame, with the driving frame and without.
        self._with_frame = (first[0], first[-1])
        self._settings = (settings[0], settings[-1]) if settings else None

    def address(self, tensor: str) -> int:
        """Where a tensor lies on the device."""
        return self._base + self._offsets[tensor]

    def tensor(self, name: str) -> Tensor:
        """What the manifest says of it."""
        return self._tensors[name]

    def view(self, tensor: str) -> NDArray[Any]:
        """The pinned memory of a boundary tensor.

        Raises:
            BackendError: it is none.
        """
        if tensor not in self._views:
            raise not_boundary(tensor)
        return self._views[tensor]

    def upload(self, tensor: str) -> None:
        """Send a boundary tensor up, in stream order."""
        self._device.upload(self.address(tensor), self._views[tensor], self._stream)

    def upload_inputs(self, with_driving_frame: bool) -> None:
        """Send up all that a frame takes, in one copy; the driving frame may be there already."""
        ends = self._with_frame if with_driving_frame else self._settings
        if ends is not None:
            self._device.upload(self.address(ends[0]), self._span(*ends), self._stream)

    def download(self, tensor: str) -> None:
        """Bring a boundary tensor down, in stream order."""
        self._device.download(self._views[tensor], self.address(tensor), self._stream)

    def copy(self, source: str, target: str) -> None:
        """One tensor onto another, in stream order."""
        size = size_of(self._tensors[source])
        self._device.copy(self.address(target), self.address(source), size, self._stream)

    def read(self, tensor: str) -> NDArray[Any]:
        """A copy of what the device holds; waits for the stream."""
        value = np.empty(self._tensors[tensor].shape, self._type(tensor))
        self._device.download(value, self.address(tensor), self._stream)
        self._device.synchronise(self._stream)
        return value

    def write(self, tensor: str, value: ArrayLike) -> None:
        """Set what the device holds; waits for the stream, since `value` is pageable memory."""
        whole = np.empty(self._tensors[tensor].shape, self._type(tensor))
        whole[...] = value
        self._device.upload(self.address(tensor), whole, self._stream)
        self._device.synchronise(self._stream)

    def _type(self, tensor: str) -> np.dtype[Any]:
        return np.dtype(self._tensors[tensor].dtype)

    def _span(self, first: str, last: str) -> NDArray[np.uint8]:
        """The pinned bytes from the first to the end of the last tensor."""
        end = self._offsets[last] + size_of(self._tensors[last])
        return self._pinned[self._offsets[first] : end]


def size_of(tensor: Tensor) -> int:
    """Its bytes."""
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
