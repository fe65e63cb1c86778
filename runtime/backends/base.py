"""The interface between a Session and its backend, and what all backends share."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.manifest import FRAME, Chain, Tensor
from ..media.frames import Letterbox
from ..support.errors import BackendError

ALIGNMENT = 64  # one cache line, and the widest vector of the CPU


class Backend(Protocol):
    """A bundle's stages, opened, with one buffer per tensor name shared by all of them.

    A stage's output buffer IS the next stage's input, so nothing is handed over between stages. On
    a device only the boundary tensors (the inputs of the caller, and the frame) come to the host.
    Not thread-safe: the Animator takes care of that.
    """

    name: str
    """As given to `Animator.open(backend=...)`."""
    device: str
    """What it runs on, in words."""
    precision: str
    """What it computes in: one of PRECISIONS."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds of each per-frame stage in the last frame, in their order: by the host's clock on
        a CPU, by events on a device."""

    def view(self, tensor: str) -> NDArray[Any]:
        """Host memory of a boundary tensor: the next run reads what is written there, and the
        frame is there when `run_frame` returns. Always the same array. A BackendError for any other
        tensor; `read` and `write` reach all of them."""

    def read(self, tensor: str) -> NDArray[Any]:
        """A copy of any tensor, as the last run or write left it."""

    def write(self, tensor: str, value: ArrayLike) -> None:
        """Set any tensor; broadcasts."""

    def copy(self, source: str, target: str) -> None:
        """Copy one tensor onto another of the same shape, where they live."""

    def run(self, stage: str) -> None:
        """Run one stage to its end, with the boundary tensors as they are now; a BackendError if it
        fails."""

    def run_frame(self) -> None:
        """Run all per-frame stages in their order, then carry every recurrent state on. After a
        BackendError the recurrent states must not be used any more."""

    def another(self) -> Backend:
        """A backend of the same bundle with buffers of its own, which may run at the same time. On
        a CPU the two share the opened stages, and so the weights."""

    def close(self) -> None:
        """Give everything back; the views are dead after it."""


class EnlargedSource(NamedTuple):
    """A source picture as frames of one size read it (compose.py): 3 times enlarged."""

    low: NDArray[np.float32]
    """(3 S/2, 3 S/2[, 3]), levels: the low-pass of the model's square of S x S."""
    picture: NDArray[np.uint8]
    """3 times the frame's height and width and what surrounds it there[, 3]."""
    above: int
    left: int
    """Rows and columns before the frame's own, not enlarged."""
    box: Letterbox
    """Where the frame lies in the model's square."""
    size: tuple[int, int]
    """(width, height) of the frame."""


def boundary(chain: Chain) -> dict[str, Tensor]:
    """The tensors that cross between the caller and the stages: the inputs, and the frame."""
    tensors = chain.tensors()
    return {name: tensors[name] for name in (*chain.given(), FRAME)}


class Views(dict[str, NDArray[Any]]):
    """The boundary tensors' memory on the host, by name; a BackendError for any other name."""

    def __missing__(self, tensor: str) -> NoReturn:
        raise BackendError(
            f"{tensor!r} has no memory on the host: it is not a boundary tensor of this bundle",
            "read() and write() reach every tensor",
        )


def difference(said: Mapping[str, str], found: Mapping[str, str]) -> str:
    """The first tensor whose type or shape, in words, differs from the manifest's, or ""."""
    for name in sorted(said.keys() | found.keys()):
        if said.get(name) != found.get(name):
            here, there = found.get(name, "absent"), said.get(name, "absent")
            return f"{name!r} is {here} in the file, {there} in the manifest"
    return ""


def allocate_all(chain: Chain) -> dict[str, NDArray[Any]]:
    """One zeroed, aligned buffer per tensor name of the whole chain: stages that use the same name
    share it, which is how they are wired."""
    buffers = {}
    for name, tensor in chain.tensors().items():
        dtype = np.dtype(tensor.dtype)
        count = int(np.prod(tensor.shape, dtype=np.int64)) * dtype.itemsize
        raw = np.zeros(count + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        buffers[name] = raw[start : start + count].view(dtype).reshape(tensor.shape)
    return buffers


def default_threads() -> int:
    """Physical cores that this process may use, by its affinity and its cgroup's quota.

    Two hardware threads of one core gain nothing for convolutions, so they count as one.
    """
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(len(cores), round(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # "max": no quota
        return len(cores)


def cpu_name() -> str:
    """The processor's name, as Linux reports it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
