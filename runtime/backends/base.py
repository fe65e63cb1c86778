"""What a Session asks of a backend, and what every backend shares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.manifest import FRAME, Chain, Tensor
from ..media.frames import Letterbox
from ..support.errors import BackendError
from .arrays import DeviceArray

ALIGNMENT = 64  # one cache line, and the widest vector of the CPU


class Backend(Protocol):
    """A bundle's stages, opened, with one buffer per tensor name shared by all of them.

    A stage's output buffer IS the next stage's input, so nothing is handed over between stages, and
    on a device nothing but the boundary tensors (what the caller gives, and the frame) ever comes
    to the host. Not thread-safe: the Animator takes care of that.
    """

    name: str
    """As given to `Animator.open(backend=...)`."""
    device: str
    """What it runs on, in words."""
    threads: int
    """Threads that one stage uses on the CPU."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds of each per-frame stage in the last frame, in their order; a live view. By the
        host's clock on a CPU, by events on a device."""

    def view(self, tensor: str) -> NDArray[Any]:
        """Host memory of a boundary tensor: what is written there is what the next run reads, and
        the frame is there when `run_frame` returns. The same array for the backend's whole life.

        Raises:
            BackendError: it is no boundary tensor of the bundle; `read` and `write` reach all.
        """

    def read(self, tensor: str) -> NDArray[Any]:
        """A copy of any tensor, as the last run or write left it."""

    def write(self, tensor: str, value: ArrayLike) -> None:
        """Set any tensor: a state to 0, a reference to what it was. Broadcasts."""

    def copy(self, source: str, target: str) -> None:
        """Copy one tensor onto another of the same shape, where they live."""

    def run(self, stage: str) -> None:
        """Run one stage to its end, with the boundary tensors as they are now.

        Raises:
            BackendError: the stage failed.
        """

    def run_frame(self) -> None:
        """Run all per-frame stages in their order, then carry every recurrent state on.

        Raises:
            BackendError: a stage failed; the recurrent states may not be used any more.
        """

    def close(self) -> None:
        """Give everything back; the views are dead after it."""


@runtime_checkable
class TakesDeviceArrays(Protocol):
    """A backend on a device, which exchanges tensors with arrays there and skips the host."""

    def adopt(self, value: Any, what: str, writable: bool = False) -> DeviceArray:
        """Look at somebody's array; see `arrays.device_array`."""

    def put(self, tensor: str, array: DeviceArray | None) -> None:
        """Copy a given tensor's value from the array, in stream order. The view is not uploaded
        then, until None says that it counts again."""

    def take(self, tensor: str, array: DeviceArray) -> None:
        """Let the next `run_frame` copy the tensor to the array, in stream order. The frame is not
        downloaded then, and its view is stale. Given before that `run_frame`, whose one
        synchronisation covers the copy."""


class EnlargedSource(NamedTuple):
    """A source picture as frames of one size read it (compose.py): 3 times enlarged.

    Attributes:
        low: float32 (3 S/2, 3 S/2[, 3]), levels: the low-pass of the model's square of S x S.
        picture: uint8, 3 times the frame's height and width and what surrounds it there[, 3].
        above: rows that lie before the frame's own, not enlarged.
        left: columns that do.
        box: where the frame lies in the model's square.
        size: (width, height) of the frame.
    """

    low: NDArray[np.float32]
    picture: NDArray[np.uint8]
    above: int
    left: int
    box: Letterbox
    size: tuple[int, int]


@runtime_checkable
class ComposesFrames(Protocol):
    """A backend on a device, which may compose frames of the layers there."""

    @property
    def can_compose(self) -> bool:
        """Whether it can; nothing else here may be called if not."""

    def compose_over(self, source: EnlargedSource) -> None:
        """Take the source that frames are composed over from now on.

        Raises:
            BackendError: out of memory, or the device cannot compose: `can_compose` is False then.
        """

    def compose_next(self, wanted: bool) -> None:
        """Let the next `run_frame` compose too, as a part of the frame, or not. The model's own
        frame is not downloaded then, and its view is stale."""

    def composed(self) -> NDArray[np.uint8]:
        """The frame of the layers as the last run left them, (height, width[, 3]); a new array."""


def boundary(chain: Chain) -> dict[str, Tensor]:
    """The tensors that cross between the caller and the stages: what is given, and the frame."""
    tensors = chain.tensors()
    return {name: tensors[name] for name in (*chain.given(), FRAME)}


def not_boundary(tensor: str) -> BackendError:
    """For a `view` of what stays inside."""
    return BackendError(
        f"{tensor!r} has no memory on the host: it is no boundary tensor of this bundle",
        "read() and write() reach every tensor",
    )


def allocate(tensor: Tensor) -> NDArray[Any]:
    """A zeroed, aligned array for a tensor."""
    dtype = np.dtype(tensor.dtype)
    count = int(np.prod(tensor.shape, dtype=np.int64)) * dtype.itemsize
    raw = np.zeros(count + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + count].view(dtype).reshape(tensor.shape)


def allocate_all(chain: Chain) -> dict[str, NDArray[Any]]:
    """One buffer per tensor name of the whole chain: equal names share it, and so are wired."""
    return {name: allocate(tensor) for name, tensor in chain.tensors().items()}


def default_threads() -> int:
    """Physical cores that this process may use: its affinity and its cgroup's quota count.

    Two hardware threads of one core gain nothing for convolutions, so they count as one.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed is None:
        return max(1, os.cpu_count() or 1)
    cores = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, min(len(cores), _quota()))


def _quota() -> int:
    """Whole CPUs that the cgroup grants, or a very large number."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return 1 << 16
