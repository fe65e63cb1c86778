"""CUDA, as little of it as a frame needs: the only place of the runtime that calls cuda.bindings.

Addresses, streams, events and graphs are plain integers. Tests play a `Device` on the host.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.errors import BackendError
from ..support.process import import_or_explain
from .cuda_errors import DeviceError, device_error

Bytes = NDArray[np.uint8]

DEFAULT_STREAM = 1
"""cudaStreamLegacy: the stream of work that names no stream."""

_NO_DRIVER = "no NVIDIA driver"


class Device:
    """One GPU. Copies are asynchronous and in stream order; every call may raise a DeviceError."""

    def __init__(self, index: int = 0) -> None:
        """Find a GPU by its number, from 0, among those that the process sees.

        Raises:
            BackendError: cuda-bindings is missing, the driver is too old, there is no GPU, or none
                of that number.
        """
        cure = 'pip install "sonomime[gpu]" (or cuda-bindings)'
        self._cuda = import_or_explain("cuda.bindings.runtime", cure)
        self._driver = import_or_explain("cuda.bindings.driver", cure)
        self.index = index
        self.name, self.versions = "the GPU", self._versions()
        if self.versions.startswith(_NO_DRIVER):
            raise BackendError(
                f"there is {_NO_DRIVER} on this machine, so GPU {index} cannot be used",
                "leave the device out to run on the CPU; with an NVIDIA GPU, install its driver, "
                "then check that nvidia-smi lists the GPU",
            )
        count = self._call(self._cuda.cudaGetDeviceCount, what="looking for GPUs")
        if not count:
            raise self._error("cudaErrorNoDevice", "no CUDA-capable device", "looking for GPUs")
        if not 0 <= index < count:
            raise BackendError(
                f"there is no GPU {index}: this process sees {count}, counted from 0",
                "`sonomime doctor` lists them; CUDA_VISIBLE_DEVICES says which a process sees",
            )
        modes = self._cuda.cudaStreamCaptureMode
        self._local = modes.cudaStreamCaptureModeThreadLocal
        self._relaxed = modes.cudaStreamCaptureModeRelaxed
        what = "opening it"
        with self.current():
            self._call(self._cuda.cudaSetDevice, self.index, what=what)
            facts = self._call(self._cuda.cudaGetDeviceProperties, self.index, what=what)
        self.name = facts.name.decode(errors="replace").rstrip("\0")
        self.capability = (int(facts.major), int(facts.minor))
        kinds = self._cuda.cudaMemcpyKind
        self._up = kinds.cudaMemcpyHostToDevice
        self._down = kinds.cudaMemcpyDeviceToHost
        self._across = kinds.cudaMemcpyDeviceToDevice

    @contextmanager
    def current(self, freeing: bool = False) -> Iterator[None]:
        """Within it, this is the calling thread's GPU, for memory and launches, and captures of
        other threads do not concern it; afterwards all is as before. `freeing`: nor do captures of
        this thread, since the garbage collector may give memory back at any time."""
        before = self._cuda.cudaGetDevice()[1]  # None on an error, which the next call reports
        moves = before not in (None, self.index)
        # Going back to a GPU that this process does not use would take hundreds of MB there.
        returns = moves and self._in_use(before)
        if moves:
            self._cuda.cudaSetDevice(self.index)
        # While another thread captures in mode Global, as ONNX Runtime and torch do, this one must
        # not allocate or query an event by default: the call fails, and so does the capture.
        exchange = self._cuda.cudaThreadExchangeStreamCaptureMode
        mode = exchange(self._relaxed if freeing else self._local)[1]
        try:
            yield
        finally:
            if mode is not None:
                exchange(mode)
            if returns:
                self._cuda.cudaSetDevice(before)

    def _in_use(self, index: int) -> bool:
        """Whether this process has a context on that GPU."""
        status, _, active = self._driver.cuDevicePrimaryCtxGetState(index)
        return int(status) == 0 and bool(active)

    def memory(self) -> tuple[int, int]:
        """Bytes free, and bytes in all."""
        status, free, total = self._cuda.cudaMemGetInfo()
        self._check(status, "asking for its free memory")
        return int(free), int(total)

    def gpu_of(self, address: int) -> int | None:
        """The number of the GPU whose memory that is; None for any other memory."""
        ask = self._cuda.cudaPointerGetAttributes
        facts = self._call(ask, address, what="asking where an array lies")
        kinds = self._cuda.cudaMemoryType
        if facts.type == kinds.cudaMemoryTypeManaged:  # every GPU's
            return self.index
        return int(facts.device) if facts.type == kinds.cudaMemoryTypeDevice else None

    def malloc(self, size: int) -> int:
        """Memory on the device: its address, aligned to 256 bytes at least."""
        return int(self._allocate(self._cuda.cudaMalloc, size, what=f"allocating {_mb(size)}"))

    def free(self, address: int) -> None:
        self._call(self._cuda.cudaFree, address, what="freeing memory")

    def pinned(self, size: int) -> Bytes:
        """Memory on the host that the device reads and writes directly."""
        what = f"pinning {_mb(size)} of the host's memory"
        address = int(self._allocate(self._cuda.cudaHostAlloc, size, 0, what=what))
        return np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(address)), np.uint8)

    def free_pinned(self, memory: Bytes) -> None:
        """Give it back; views of it must not be used after that."""
        self._call(self._cuda.cudaFreeHost, memory.ctypes.data, what="freeing pinned memory")

    def stream(self) -> int:
        """A stream that does not wait for the default one."""
        flags = self._cuda.cudaStreamNonBlocking
        return int(self._call(self._cuda.cudaStreamCreateWithFlags, flags, what="making a stream"))

    def destroy_stream(self, stream: int) -> None:
        self._call(self._cuda.cudaStreamDestroy, stream, what="giving a stream back")

    def synchronise(self, stream: int) -> None:
        """Wait until all work of the stream is done."""
        self._call(self._cuda.cudaStreamSynchronize, stream, what="running the stages")

    def event(self) -> int:
        """An event that keeps time."""
        return int(self._call(self._cuda.cudaEventCreate, what="making an event"))

    def destroy_event(self, event: int) -> None:
        self._call(self._cuda.cudaEventDestroy, event, what="giving an event back")

    def record(self, event: int, stream: int, captured: bool = False) -> None:
        """Note the time when the stream gets here. `captured`: the stream is being captured, and
        every launch of the graph notes it."""
        # In a capture an ordinary event is a mere dependency and keeps no time; outside of one an
        # external event is refused.
        flags = self._cuda.cudaEventRecordExternal if captured else self._cuda.cudaEventDefault
        record = self._cuda.cudaEventRecordWithFlags
        self._call(record, event, stream, flags, what="recording an event")

    def elapsed(self, begin: int, end: int) -> float:
        """Seconds between two events that have passed."""
        measure = self._cuda.cudaEventElapsedTime
        return float(self._call(measure, begin, end, what="reading the time of a stage")) / 1e3

    def wait(self, stream: int, event: int) -> None:
        """Let the stream go on only after the event."""
        self._call(self._cuda.cudaStreamWaitEvent, stream, event, 0, what="waiting for an event")

    def memset(self, address: int, value: int, size: int, stream: int) -> None:
        what = "clearing memory"
        self._call(self._cuda.cudaMemsetAsync, address, value, size, stream, what=what)

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        """From contiguous memory of the host."""
        self._copy(address, source.ctypes.data, source.nbytes, self._up, stream, "uploading")

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        """To contiguous memory of the host."""
        self._copy(target.ctypes.data, address, target.nbytes, self._down, stream, "downloading")

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """On the device."""
        self._copy(target, source, size, self._across, stream, "copying on the device")

    def begin_capture(self, stream: int) -> None:
        """Collect what this thread gives the stream, rather than run it."""
        begin = self._cuda.cudaStreamBeginCapture
        self._call(begin, stream, self._local, what="beginning to capture a frame")

    def end_capture(self, stream: int) -> int:
        """What was collected, as a graph."""
        return int(self._call(self._cuda.cudaStreamEndCapture, stream, what="capturing a frame"))

    def abort_capture(self, stream: int) -> None:
        """Throw away what was collected; raises nothing."""
        status, graph = self._cuda.cudaStreamEndCapture(stream)
        if int(status) == 0 and graph is not None:
            self._cuda.cudaGraphDestroy(graph)
        self._cuda.cudaGetLastError()

    def instantiate(self, graph: int) -> int:
        """Make a graph ready to be launched; the graph itself is given back."""
        make = self._cuda.cudaGraphInstantiate
        try:
            return int(self._allocate(make, graph, 0, what="making a frame's graph ready"))
        finally:
            self._cuda.cudaGraphDestroy(graph)

    def launch(self, executable: int, stream: int) -> None:
        self._call(self._cuda.cudaGraphLaunch, executable, stream, what="launching a frame")

    def destroy_executable(self, executable: int) -> None:
        self._call(self._cuda.cudaGraphExecDestroy, executable, what="giving a graph back")

    def _copy(self, target: int, source: int, size: int, kind: Any, stream: int, what: str) -> None:
        self._call(self._cuda.cudaMemcpyAsync, target, source, size, kind, stream, what=what)

    def _call(self, function: Callable[..., Any], *arguments: Any, what: str) -> Any:
        status, *values = function(*arguments)
        self._check(status, what)
        return values[0] if values else None

    def _allocate(self, function: Callable[..., Any], *arguments: Any, what: str) -> Any:
        """A call that may run out of memory, and says then how much there is."""
        try:
            return self._call(function, *arguments, what=what)
        except DeviceError as error:
            if error.code == "cudaErrorMemoryAllocation":
                status, free, total = self._cuda.cudaMemGetInfo()
                if int(status) == 0:
                    error.message += f"; {_mb(free)} of {_mb(total)} are free on {self.name}"
            raise

    def _check(self, status: Any, what: str) -> None:
        if int(status) != 0:
            # The last error is the whole process's: torch would find it and take it for its own.
            self._cuda.cudaGetLastError()
            text = self._cuda.cudaGetErrorString(status)[1]
            raise self._error(status.name, text.decode(errors="replace"), what)

    def _error(self, code: str, text: str, what: str) -> DeviceError:
        error = device_error(code, text, what)
        if code in ("cudaErrorInsufficientDriver", "cudaErrorNoDevice"):
            error.message += f"; {self.versions}"
        return error

    def _versions(self) -> str:
        driver = int(self._cuda.cudaDriverGetVersion()[1] or 0)
        runtime = int(self._cuda.cudaRuntimeGetVersion()[1] or 0)
        served = f"driver for CUDA {_version(driver)}" if driver else _NO_DRIVER
        return f"{served}, CUDA runtime {_version(runtime)}"


def open_device(index: int | None = None) -> Device:
    """A GPU by its number, None for the first; raises as `Device`."""
    return Device(index or 0)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
