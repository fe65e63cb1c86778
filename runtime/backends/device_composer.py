"""Frames composed on a GPU, by a kernel of the plugin's library (csrc/compose_frame.h).

The library's plain C function takes addresses and a stream: neither torch nor TensorRT is needed.
"""

from __future__ import annotations

import ctypes
import logging
import math
from contextlib import ExitStack, suppress
from ctypes import c_int, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import Chain
from ..engines.tensorrt_packages import LIBRARIES, plugin_path
from ..support.errors import BackendError
from .base import EnlargedSource
from .cuda import Device
from .device_memory import DeviceMemory

log = logging.getLogger("sonomime")

FUNCTION = "sonomime_compose_frame"
SIGNATURE = [c_void_p] * 9 + [c_int] * 17 + [c_void_p]
"""Types of its arguments, as sonomime_kernels.h declares them."""


class DeviceComposer:
    """Composes the frame of the layers on the device over one source at one size, as
    `compose.Composer` does on the CPU.

    Attributes:
        serves: whether it can compose: the bundle has layers, the library is there, and no source
            was refused.
        release: gives back what belongs to the source, when the next one comes.
        frame: pinned memory, uint8 (height, width[, 3]), of the frame that comes down.
    """

    def __init__(
        self, chain: Chain, device: Device, memory: DeviceMemory, stream: int, release: ExitStack
    ) -> None:
        """Look for the library; `release` frees everything again."""
        self._device, self._stream = device, stream
        named = vars(chain.layers).values() if chain.layers else ()
        self._layers = [memory.address(name) for name in named]
        shapes = [chain.tensors()[name].shape for name in named]
        # (1, h, w, 2) the first two, (1, 1 or C, h, w) the others.
        maps = [*(shape[1:3] for shape in shapes[:2]), *(shape[2:] for shape in shapes[2:])]
        self._map_sizes = [*maps[0], *(shape[1] for shape in shapes[2:])] if maps else []
        # The kernel takes layers of one size, as those of every model here are.
        self._kernel: Any = load_kernel() if len(set(maps)) == 1 else None
        self.serves = self._kernel is not None
        self.release = release.enter_context(ExitStack())
        self.frame: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._arguments: tuple[int, ...] = ()

    def take(self, source: EnlargedSource) -> None:
        """Give back the last source, take another, and compose once: CUDA loads a kernel at its
        first launch, which must not be while a frame is captured. After an error `serves` is False.
        """
        self.release.close()
        device, box, picture = self._device, source.box, source.picture
        (width, height), channels = source.size, math.prod(picture.shape[2:])
        sizes = [source.low.nbytes, picture.nbytes, 4 * (box.size // 2) ** 2 * channels]
        sizes += [height * width * channels]
        try:
            addresses = [device.malloc(size, self.release) for size in sizes]
            pinned = device.pinned(sizes[-1], self.release)
            self.frame = pinned.reshape(height, width, *picture.shape[2:])
            self._arguments = (
                *self._layers, *addresses, channels, *self._map_sizes, box.size, box.x, box.y,
                box.w, box.h, height, width, source.above, source.left, *picture.shape[:2],
            )  # fmt: skip
            device.upload(addresses[0], source.low, self._stream)
            device.upload(addresses[1], picture, self._stream)
            self.enqueue()
            device.synchronise(self._stream)
        except BaseException:
            self.serves = False
            with suppress(BackendError):  # on a lost GPU nothing can be given back
                device.synchronise(self._stream)
                self.release.close()
            raise

    def enqueue(self) -> None:
        """Compose and bring the frame down, in stream order; a BackendError if the kernel cannot be
        launched."""
        status = self._kernel(*self._arguments, self._stream)
        if status:
            raise BackendError(
                f"the frame cannot be composed on {self._device.name}: CUDA error {status}",
                "compile the plugin again for this GPU (docs/gpu.md), or remove its library: the "
                "CPU composes frames then",
            )
        self._device.download(self.frame, self._arguments[8], self._stream)


def load_kernel() -> Any:
    """The function in the plugin's library, or in the kernels' own. None if neither is there, or
    neither can be used, which is logged."""
    reasons = []
    for find in (plugin_path, lambda: LIBRARIES / "libsonomime_kernels.so"):
        try:
            path = find()
            if path is not None and path.is_file():
                kernel = getattr(ctypes.CDLL(str(path)), FUNCTION)
                kernel.argtypes = SIGNATURE
                return kernel
        except (BackendError, OSError, AttributeError) as error:
            reasons.append(str(error))  # AttributeError: a library without this function
    if reasons:
        log.warning("frames are composed on the CPU, not on the GPU: %s", "; ".join(reasons))
    return None
