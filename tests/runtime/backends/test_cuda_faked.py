"""The real device, whose calls go to a cuda.bindings.runtime that is played by the fake one."""

from __future__ import annotations

import ctypes
import functools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_device import FakeDevice
from fake_engines import install
from toy_bundle import blob

from sonomime.runtime import Animator
from sonomime.runtime.backends import cuda
from sonomime.runtime.backends.cuda import Device, open_device
from sonomime.runtime.backends.cuda_errors import DeviceError
from sonomime.runtime.support.errors import BackendError


class Status(int):
    """cudaError_t: an int with a name."""

    name: str

    def __new__(cls, value: int, name: str) -> Status:
        status = super().__new__(cls, value)
        status.name = name
        return status


GOOD = Status(0, "cudaSuccess")

# Functions of CUDA that take what the method of the device takes.
SAME = {
    "cudaMalloc": "malloc", "cudaFree": "free", "cudaMemsetAsync": "memset",
    "cudaStreamDestroy": "destroy_stream", "cudaStreamSynchronize": "synchronise",
    "cudaEventCreate": "event", "cudaEventDestroy": "destroy_event",
    "cudaGraphLaunch": "launch", "cudaGraphExecDestroy": "destroy_executable",
}  # fmt: skip


class FakeRuntime(types.ModuleType):
    """What of cuda.bindings.runtime is used: (status, value) by the signatures of version 13."""

    cudaMemcpyKind = types.SimpleNamespace(
        cudaMemcpyHostToDevice="up",
        cudaMemcpyDeviceToHost="down",
        cudaMemcpyDeviceToDevice="across",
    )
    cudaStreamCaptureMode = types.SimpleNamespace(
        cudaStreamCaptureModeThreadLocal="thread", cudaStreamCaptureModeRelaxed="relaxed"
    )
    cudaMemoryType = types.SimpleNamespace(cudaMemoryTypeDevice=2, cudaMemoryTypeManaged=3)
    cudaStreamNonBlocking, cudaEventRecordExternal, cudaEventDefault = 1, 1, 0

    def __init__(self, device: FakeDevice, count: int = 1, driver: int = 13000) -> None:
        super().__init__("cuda.bindings.runtime")
        self.device, self.count, self.driver = device, count, driver
        self.status = GOOD
        self.resets = self.current = 0
        self.contexts: set[int] = set()  # GPUs that this process has memory of
        self.moves: list[int] = []
        self.mode = "global"
        self.attributes = types.SimpleNamespace(type=0, device=0)
        calls: dict[str, Callable[..., Any]] = {
            "cudaHostAlloc": lambda size, flags: device.pinned(size).ctypes.data,
            "cudaFreeHost": lambda address: device.free_pinned(device.pins[address]),
            "cudaStreamWaitEvent": lambda stream, event, flags: device.wait(stream, event),
            "cudaEventRecordWithFlags": lambda event, stream, flags: device.record(
                event, stream, flags == self.cudaEventRecordExternal
            ),
            "cudaEventElapsedTime": lambda begin, end: device.elapsed(begin, end) * 1e3,
            **{name: getattr(device, method) for name, method in SAME.items()},
        }
        for name, call in calls.items():
            setattr(self, name, functools.partial(self._do, call))
        l4 = types.SimpleNamespace(name=b"NVIDIA L4\0\0", major=8, minor=9)
        self.cudaGetDeviceCount = lambda: (self.status, self.count)
        self.cudaGetDevice = lambda: (GOOD, self.current)
        self.cudaGetDeviceProperties = lambda index: (self.status, l4)
        self.cudaPointerGetAttributes = lambda address: (self.status, self.attributes)
        self.cudaDriverGetVersion = lambda: (GOOD, self.driver)
        self.cudaRuntimeGetVersion = lambda: (GOOD, 13050)
        self.cudaGetErrorString = lambda status: (GOOD, b"as CUDA says it")
        self.cudaMemGetInfo = lambda: (GOOD, *self.device.memory())

    def _do(self, method: Callable[..., Any], *given: Any) -> Any:
        try:
            made = method(*given)
        except DeviceError as error:
            return (Status(2, error.code), None)
        return (GOOD, made) if made is not None else (GOOD,)

    def cudaSetDevice(self, index: int) -> Any:
        self.current = index
        self.contexts.add(index)
        self.moves.append(index)
        return (self.status,)

    def cudaThreadExchangeStreamCaptureMode(self, mode: str) -> Any:
        before, self.mode = self.mode, mode
        return GOOD, before

    def cudaGetLastError(self) -> Any:
        self.resets += 1
        return (GOOD,)

    def cudaMemcpyAsync(self, to: int, of: int, size: int, kind: str, stream: int) -> Any:
        def host(address: int) -> Any:
            # The caller keeps the memory until the stream was waited for.
            return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

        if kind == "across":
            return self._do(self.device.copy, to, of, size, stream)
        if kind == "up":
            return self._do(self.device.upload, to, host(of), stream)
        return self._do(self.device.download, host(to), of, stream)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == self.cudaStreamNonBlocking
        return self._do(self.device.stream)

    def cudaStreamBeginCapture(self, stream: int, mode: str) -> Any:
        assert mode == "thread"
        return self._do(self.device.begin_capture, stream)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        if self.device.streams[stream].captured is None:
            return Status(1, "cudaErrorInvalidValue"), None
        return self._do(self.device.end_capture, stream)

    def cudaGraphDestroy(self, graph: int) -> Any:
        self.device.graphs.pop(graph, None)
        return (GOOD,)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        kept = dict(self.device.graphs)
        made = self._do(self.device.instantiate, graph)
        self.device.graphs = kept  # CUDA leaves the graph to the caller
        return made


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime(FakeDevice())
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    driver: Any = types.ModuleType("cuda.bindings.driver")
    driver.cuDevicePrimaryCtxGetState = lambda index: (GOOD, 0, int(index in fake.contexts))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
    for parent in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    return fake


def test_frames_through_the_real_device(
    runtime: FakeRuntime, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cuda.open_device
    trt = install(monkeypatch, runtime.device)
    monkeypatch.setattr("sonomime.runtime.backends.tensorrt.open_device", real)
    results = []
    for name in ("tensorrt", "ort-cpu"):
        with Animator.open(toy_bundle, name, motion="absolute", smooth=True) as animator:
            animator.set_source(blob(64, 0, 0))
            results.append([animator.animate(blob(64, 0.1 * i, 0)) for i in range(5)])
            if name == "tensorrt":
                words = "NVIDIA L4 (sm_89), TensorRT 10.9.8, driver for"
                assert animator.session.backend.device.startswith(words)
                assert animator.timings["motion"] == pytest.approx(2e-3)
    assert np.array_equal(*results) and runtime.device.calls.count("launch") == 4
    trt.gone()


def test_within_a_block_it_is_the_threads_gpu_and_afterwards_all_is_as_before(
    runtime: FakeRuntime,
) -> None:
    runtime.count = 3
    for index in (1, 2):
        device = open_device(index)
        with device.current():
            assert (runtime.current, device.index, runtime.mode) == (index, index, "thread")
    assert runtime.contexts == {1, 2}, "to go back to GPU 0 would take memory of it"
    runtime.cudaSetDevice(1)
    with pytest.raises(ValueError, match="no matter"), device.current():
        assert runtime.current == 2
        with device.current(freeing=True):
            assert runtime.mode == "relaxed"
            raise ValueError("no matter")
    assert (runtime.current, runtime.mode) == (1, "global"), "the caller works there"
    runtime.current = 2
    runtime.moves.clear()
    with device.current():
        assert runtime.moves == []


@pytest.mark.parametrize("index", [2, -1])
def test_a_number_that_is_not_there_says_how_many_there_are(
    runtime: FakeRuntime, index: int
) -> None:
    runtime.count = 2
    with pytest.raises(BackendError, match=f"GPU {index}:.*sees 2"):
        open_device(index)
    assert not runtime.contexts


@pytest.mark.parametrize(
    ("kind", "number", "found"), [(0, 0, None), (1, 0, None), (2, 0, 0), (2, 1, 1), (3, 1, 0)],
    ids=["nobody's", "host", "ours", "another's", "managed"],
)  # fmt: skip
def test_whose_memory_an_address_is(
    runtime: FakeRuntime, kind: int, number: int, found: int | None
) -> None:
    runtime.attributes = types.SimpleNamespace(type=kind, device=number)
    assert open_device().gpu_of(4096) == found


def test_out_of_memory_says_how_much_and_leaves_no_error_behind(runtime: FakeRuntime) -> None:
    device = open_device()
    for call, action, what in (
        ("malloc", lambda: device.malloc(123_000_000), "allocating 123.0 MB"),
        ("pinned", lambda: device.pinned(2_000_000_000), "pinning 2.0 GB of the host's memory"),
    ):
        runtime.device.fail(call)
        before = runtime.resets
        with pytest.raises(DeviceError) as caught:
            action()
        assert what in caught.value.message
        assert "1.0 GB of 1.0 GB are free on NVIDIA L4" in caught.value.message
        assert runtime.resets > before, "torch would find it"
        assert not caught.value.lost


def test_a_graph_that_is_not_instantiated_is_destroyed(runtime: FakeRuntime) -> None:
    device = open_device()
    stream = device.stream()
    device.begin_capture(stream)
    graph = device.end_capture(stream)
    runtime.device.fail("instantiate")
    with pytest.raises(DeviceError, match="making a frame's graph ready"):
        device.instantiate(graph)
    device.begin_capture(stream)
    device.abort_capture(stream)
    device.abort_capture(stream)  # nothing is being captured: no matter
    device.destroy_stream(stream)
    assert runtime.device.leaks() == []


@pytest.mark.parametrize(
    ("code", "count", "driver", "expected"),
    [
        ("cudaErrorInsufficientDriver", 0, 0, "there is no NVIDIA driver on this machine"),
        ("cudaErrorInsufficientDriver", 0, 11040, "driver for CUDA 11.4, CUDA runtime 13.5"),
        ("cudaErrorNoDevice", 0, 13000, "looking for GPUs"),
        ("", 0, 13000, "looking for GPUs: no CUDA-capable device"),
    ],
)
def test_no_gpu_or_no_driver_says_what_there_is(
    runtime: FakeRuntime, code: str, count: int, driver: int, expected: str
) -> None:
    runtime.count, runtime.driver = count, driver
    runtime.status = Status(35, code) if code else GOOD
    with pytest.raises(BackendError) as caught:
        Device()
    assert expected in caught.value.message and "nvidia-smi" in caught.value.hint
