"""CUDA, as little of it as a frame needs: the only place of the runtime that calls cuda.bindings.

Addresses, streams, events and graphs are plain integers. What is made is given back by the
`release` that is handed over with the call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..support.errors import BackendError
from ..support.process import import_or_explain

DEFAULT_STREAM = 1
"""cudaStreamLegacy: the stream of work that names no stream."""

_NO_DRIVER = "no NVIDIA driver"

# After one of these every later call of the process fails too: its context is gone.
STICKY = frozenset(
    "cudaError" + name
    for name in (
        "Assert", "Contained", "ContextIsDestroyed", "CudartUnloading", "DeviceUninitialized",
        "ECCUncorrectable", "ExternalDevice", "HardwareStackError", "IllegalAddress",
        "IllegalInstruction", "InvalidAddressSpace", "InvalidPc", "LaunchFailure", "LaunchTimeout",
        "MisalignedAddress", "MpsClientTerminated", "NvlinkUncorrectable", "TensorMemoryLeak",
        "Unknown",
    )
)  # fmt: skip

LOST = (
    "this process cannot use the GPU any more: start the program again; if it comes back, set "
    "SONOMIME_CUDA_GRAPH=0 and CUDA_LAUNCH_BLOCKING=1 to see where, and look at dmesg"
)

_NO_GPU = (
    "nvidia-smi has to list a GPU; start a container with --gpus all, and let CUDA_VISIBLE_DEVICES "
    "name one"
)
_DRIVER = (
    "install or update the NVIDIA driver (nvidia-smi shows its CUDA version), or install the "
    "cuda-bindings of the driver's CUDA version"
)

_CURES = {
    "cudaErrorMemoryAllocation": "free some of the GPU's memory (nvidia-smi shows what uses it), "
    "close other Animators, or use a smaller bundle",
    "cudaErrorInsufficientDriver": _DRIVER,
    "cudaErrorSystemDriverMismatch": _DRIVER,
    "cudaErrorCompatNotSupportedOnDevice": _DRIVER,
    "cudaErrorUnsupportedPtxVersion": _DRIVER,
    "cudaErrorStubLibrary": "a stub of libcuda was loaded: take its folder (.../stubs) out of "
    "LD_LIBRARY_PATH",
    "cudaErrorNoDevice": _NO_GPU,
    "cudaErrorInitializationError": _NO_GPU + "; CUDA cannot be used after fork(): start "
    "processes by `spawn`",
    "cudaErrorDevicesUnavailable": "the GPU is busy or reserved: see who uses it with nvidia-smi, "
    "and its compute mode",
    "cudaErrorSystemNotReady": "start the machine's fabric manager and look at nvidia-smi",
    "cudaErrorNoKernelImageForDevice": "something was compiled for another GPU: build the engines "
    "and the plugin on this one",
}


class DeviceError(BackendError):
    """A call of CUDA failed."""

    lost = False
    """Whether the GPU is out of reach for the rest of the process."""


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
        count = self._call("GetDeviceCount", what="looking for GPUs")
        if not count:
            self._fail("cudaErrorNoDevice", "no CUDA-capable device", "looking for GPUs")
        if not 0 <= index < count:
            raise BackendError(
                f"there is no GPU {index}: this process sees {count}, counted from 0",
                "`sonomime doctor` lists them; CUDA_VISIBLE_DEVICES says which a process sees",
            )
        modes = self._cuda.cudaStreamCaptureMode
        self._local = modes.cudaStreamCaptureModeThreadLocal
        self._relaxed = modes.cudaStreamCaptureModeRelaxed
        self._kinds = self._cuda.cudaMemcpyKind
        with self.current():
            self._call("SetDevice", index, what="opening it")
            facts = self._call("GetDeviceProperties", index, what="opening it")
        self.name = facts.name.decode(errors="replace").rstrip("\0")
        self.capability = (int(facts.major), int(facts.minor))

    @contextmanager
    def current(self, freeing: bool = False) -> Iterator[None]:
        """Within it, this is the calling thread's GPU, for memory and launches, and captures of
        other threads do not concern it; afterwards all is as before. `freeing`: nor do captures of
        this thread, since the garbage collector may give memory back at any time."""
        before = self._cuda.cudaGetDevice()[1]  # None on an error, which the next call reports
        returns = False
        if before not in (None, self.index):
            # Going back to a GPU that this process does not use would take hundreds of MB there.
            status, _, active = self._driver.cuDevicePrimaryCtxGetState(before)
            returns = int(status) == 0 and bool(active)
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

    def room(self) -> str:
        """How much of its memory is free, in words."""
        status, free, total = self._cuda.cudaMemGetInfo()
        if int(status) != 0:
            return f"{self.name} does not say how much of its memory is free"
        return f"{_mb(free)} of {_mb(total)} are free on {self.name}"

    def gpu_of(self, address: int) -> int | None:
        """The number of the GPU whose memory that is; None for any other memory."""
        facts = self._call("PointerGetAttributes", address, what="asking where an array lies")
        kinds = self._cuda.cudaMemoryType
        if facts.type == kinds.cudaMemoryTypeManaged:  # every GPU's
            return self.index
        return int(facts.device) if facts.type == kinds.cudaMemoryTypeDevice else None

    def malloc(self, size: int, release: ExitStack) -> int:
        """Memory on the device: its address, aligned to 256 bytes at least."""
        return self._make(release, "Free", "Malloc", size, what=f"allocating {_mb(size)}")

    def pinned(self, size: int, release: ExitStack) -> NDArray[np.uint8]:
        """Memory on the host that the device reads and writes directly."""
        what = f"pinning {_mb(size)} of the host's memory"
        address = self._make(release, "FreeHost", "HostAlloc", size, 0, what=what)
        return np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(address)), np.uint8)

    def stream(self, release: ExitStack) -> int:
        """A stream that does not wait for the default one."""
        make, flags = "StreamCreateWithFlags", self._cuda.cudaStreamNonBlocking
        return self._make(release, "StreamDestroy", make, flags, what="making a stream")

    def event(self, release: ExitStack) -> int:
        """An event that keeps time."""
        return self._make(release, "EventDestroy", "EventCreate", what="making an event")

    def synchronise(self, stream: int) -> None:
        """Wait until all work of the stream is done."""
        self._call("StreamSynchronize", stream, what="running the stages")

    def record(self, event: int, stream: int, captured: bool = False) -> None:
        """Note the time when the stream gets here. `captured`: the stream is being captured, and
        every launch of the graph notes it."""
        # In a capture an ordinary event is a mere dependency and keeps no time; outside of one an
        # external event is refused.
        flags = self._cuda.cudaEventRecordExternal if captured else self._cuda.cudaEventDefault
        self._call("EventRecordWithFlags", event, stream, flags, what="recording an event")

    def elapsed(self, begin: int, end: int) -> float:
        """Seconds between two events that have passed."""
        return float(self._call("EventElapsedTime", begin, end, what="timing a stage")) / 1e3

    def wait(self, stream: int, event: int) -> None:
        """Let the stream go on only after the event."""
        self._call("StreamWaitEvent", stream, event, 0, what="waiting for an event")

    def clear(self, address: int, size: int, stream: int) -> None:
        """Set memory of the device to zero."""
        self._call("MemsetAsync", address, 0, size, stream, what="clearing memory")

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        """From contiguous memory of the host."""
        self._copy(address, source.ctypes.data, source.nbytes, "HostToDevice", stream)

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        """To contiguous memory of the host."""
        self._copy(target.ctypes.data, address, target.nbytes, "DeviceToHost", stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """On the device."""
        self._copy(target, source, size, "DeviceToDevice", stream)

    def capture(self, stream: int, enqueue: Callable[[], None], release: ExitStack) -> int:
        """Collect what `enqueue` gives the stream, rather than run it, as a graph to launch."""
        self._call("StreamBeginCapture", stream, self._local, what="beginning to capture a frame")
        try:
            enqueue()
            graph = int(self._call("StreamEndCapture", stream, what="capturing a frame"))
        except BaseException:
            self.abort_capture(stream)
            raise
        try:
            what = "making a frame's graph ready"
            return self._make(release, "GraphExecDestroy", "GraphInstantiate", graph, 0, what=what)
        finally:
            self._cuda.cudaGraphDestroy(graph)

    def abort_capture(self, stream: int) -> None:
        """Throw away what was collected, if anything was; raises nothing."""
        status, graph = self._cuda.cudaStreamEndCapture(stream)
        if int(status) == 0 and graph is not None:
            self._cuda.cudaGraphDestroy(graph)
        self._cuda.cudaGetLastError()

    def launch(self, graph: int, stream: int) -> None:
        """Run a captured graph."""
        self._call("GraphLaunch", graph, stream, what="launching a frame")

    def _copy(self, target: int, source: int, size: int, way: str, stream: int) -> None:
        kind = getattr(self._kinds, f"cudaMemcpy{way}")
        self._call("MemcpyAsync", target, source, size, kind, stream, what="copying memory")

    def _make(self, release: ExitStack, destroy: str, make: str, *given: Any, what: str) -> int:
        made = int(self._call(make, *given, what=what))
        release.callback(self._call, destroy, made, what="giving something back")
        return made

    def _call(self, name: str, *given: Any, what: str) -> Any:
        """CUDA's function of that name, which begins with "cuda"."""
        status, *values = getattr(self._cuda, f"cuda{name}")(*given)
        if int(status) != 0:
            # The last error is the whole process's: torch would find it and take it for its own.
            self._cuda.cudaGetLastError()
            text = self._cuda.cudaGetErrorString(status)[1]
            self._fail(status.name, text.decode(errors="replace"), what)
        return values[0] if values else None

    def _fail(self, code: str, text: str, what: str) -> NoReturn:
        message = f"the GPU failed while {what}: {text} ({code})"
        if code == "cudaErrorMemoryAllocation":
            message += f"; {self.room()}"
        elif code in ("cudaErrorInsufficientDriver", "cudaErrorNoDevice"):
            message += f"; {self.versions}"
        cure = _CURES.get(code, "look at nvidia-smi and `sonomime doctor`")
        error = DeviceError(message, LOST if code in STICKY else cure)
        error.lost = code in STICKY
        raise error

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
