"""Frames into a Session and out of it: numpy images, or arrays on the model's GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends.arrays import DeviceArray, host_array, on_device
from .backends.base import Backend
from .backends.device_backend import DeviceBackend
from .bundle.manifest import DRIVING_FRAME, FRAME, LANDMARK_IMAGE, SOURCE_IMAGE, Chain
from .media.frames import Image, Letterbox, check_image, to_channels
from .support.errors import BackendError, InputError

_CALLED = {
    SOURCE_IMAGE: "the source image", DRIVING_FRAME: "the driving frame",
    LANDMARK_IMAGE: "the image",
}  # fmt: skip
_TARGET = "the array to write to"


class FrameIO:
    """Writes the caller's images into the backend, and hands the synthesized frame out.

    A numpy image may have any size, and is letterboxed. Any other array is copied as it is, so it
    must have the model's size: (S, S) for a grey model, (3, S, S) for an RGB one.
    """

    def __init__(self, backend: Backend, chain: Chain) -> None:
        self._backend = backend
        self._on_device = backend if isinstance(backend, DeviceBackend) else None
        self._size, self._channels = chain.image.size, chain.image.channels
        # Looked up once: the planes of the backend's own memory on the host.
        names = [FRAME, *(name for name in chain.given() if name in _CALLED)]
        self._planes: dict[str, list[Image]] = {name: list(backend.view(name)[0]) for name in names}

    def give(self, image: Any, tensor: str) -> Letterbox:
        """Write an image or array into `tensor`.

        Raises:
            InputError: not an image, or an array of another size than the model's.
            BackendError: an array on a GPU, and the model runs elsewhere.
        """
        what = _CALLED[tensor]
        box = whole = Letterbox.fit(self._size, self._size, self._size)
        device_array = None
        if isinstance(image, np.ndarray):
            import cv2

            height, width = check_image(image).shape[:2]
            box = Letterbox.fit(width, height, self._size)
            pixels = to_channels(image, self._channels)
            # Six times as fast as a strided copy.
            cv2.split(pixels if box == whole else box.place(pixels), self._planes[tensor])
        elif on_device(image):
            device_array = self._adopt(image, what)
        else:
            found = host_array(image, what)
            self._check(found.shape, found.dtype, what)
            view = self._backend.view(tensor)
            np.copyto(view, found.reshape(view.shape))
        if self._on_device is not None:  # None: the view on the host counts again
            self._on_device.put(tensor, device_array)
        return box

    def target(self, out: Any) -> Any:
        """Check an array for the frame; the result is for `deliver_to_device` and `collect`.

        Raises:
            InputError: it cannot take a frame.
            BackendError: an array on a GPU, and the model runs elsewhere.
        """
        if out is None:
            return None
        if on_device(out):
            return self._adopt(out, _TARGET, writable=True)
        if isinstance(out, np.ndarray):
            self._check(out.shape, out.dtype, _TARGET, image=True)
            target: NDArray[Any] = out
        else:
            array = host_array(out, _TARGET)
            self._check(array.shape, array.dtype, _TARGET)
            target = array.reshape(-1, self._size, self._size)
            target = target[0] if self._channels == 1 else target.transpose(1, 2, 0)
        if not target.flags.writeable:
            raise InputError(f"{_TARGET} is read-only")
        return target

    def deliver_to_device(self, target: Any) -> None:
        """Before a frame runs: let the device copy it to `target`, if that lies there."""
        if isinstance(target, DeviceArray) and self._on_device is not None:
            self._on_device.take(target)

    def collect(self, target: Any) -> Image | None:
        """After a frame ran: a new image if there is no target, else None."""
        if isinstance(target, DeviceArray):
            return None
        frame = self.frame()
        if target is None:
            return frame
        np.copyto(target, frame)
        return None

    def frame(self) -> Image:
        """The frame on the host, as a new image."""
        import cv2

        return np.asarray(cv2.merge(self._planes[FRAME]), np.uint8)

    def _adopt(self, value: Any, what: str, writable: bool = False) -> DeviceArray:
        if self._on_device is None:
            raise BackendError(
                f"{what} lies on a GPU, and the model runs on {self._backend.device}",
                "hand over a numpy array, or open a backend on the GPU (tensorrt, rtx, ort-cuda)",
            )
        array = self._on_device.adopt(value, what, writable)
        self._check(array.shape, np.dtype(np.uint8), what)
        return array

    def _check(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], what: str, image: bool = False
    ) -> None:
        """Refuse what is no frame, as planes (axes of length 1 may come first) or as an image."""
        wanted: tuple[int, ...] = (self._size, self._size)
        if self._channels == 3:
            wanted = (*wanted, 3) if image else (3, *wanted)
        more = 0 if image else len(shape) - len(wanted)
        if shape != (1,) * more + wanted or dtype != np.uint8:
            hint = "only numpy images are letterboxed; bring other arrays to the model's size first"
            raise InputError(
                f"{what} is {dtype} {list(shape)}, the model takes uint8 {list(wanted)}",
                "" if image else hint,
            )
