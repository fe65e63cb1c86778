"""What the Animator asks of a backend, and what every backend shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import Manifest, Tensor

ALIGNMENT = 64  # one cache line, and the widest vector of the CPU


class Backend(Protocol):
    """A bundle's stages, opened, with one buffer per tensor name shared by all of them.

    A stage's output buffer IS the next stage's input, so nothing is handed over between stages.
    Not thread-safe: the Animator takes care of that.
    """

    name: str
    """As given to `Animator.open(backend=...)`."""
    device: str
    """What it runs on, in words."""
    threads: int
    """Threads that one stage uses on the CPU."""

    def view(self, tensor: str) -> NDArray[Any]:
        """Host memory of a tensor: what is written there is what the next `run` reads, and what a
        `run` made is there when it returns. The same array for the backend's whole life."""

    def copy(self, source: str, target: str) -> None:
        """Copy one tensor onto another of the same shape, wherever they live."""

    def run(self, stage: str) -> None:
        """Run one stage to its end.

        Raises:
            BackendError: the stage failed.
        """

    def close(self) -> None:
        """Give everything back; the views are dead after it."""


def allocate(tensor: Tensor) -> NDArray[Any]:
    """A zeroed, aligned array for a tensor."""
    dtype = np.dtype(tensor.dtype)
    count = int(np.prod(tensor.shape, dtype=np.int64)) * dtype.itemsize
    raw = np.zeros(count + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + count].view(dtype).reshape(tensor.shape)


def allocate_all(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """One buffer per tensor name of the whole chain: equal names share it, and so are wired."""
    buffers: dict[str, NDArray[Any]] = {}
    for stage in manifest.stages:
        for tensor in (*stage.inputs, *stage.outputs):
            if tensor.name not in buffers:
                buffers[tensor.name] = allocate(tensor)
    return buffers


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
