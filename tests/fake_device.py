"""A GPU played by the host: `cuda.Device` over its memory, where a stream's work waits until
somebody waits for it.

So a result read without a synchronisation is stale, and memory freed too early is caught. Addresses
are real, so that ONNX Runtime's CPU sessions can play the stages.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonomime.runtime.backends.cuda import DEFAULT_STREAM
from sonomime.runtime.backends.cuda_errors import STICKY, device_error

Work = tuple[str, Callable[[], None]]
Blocks = dict[int, NDArray[np.uint8]]
BYTES = 10**9


@dataclass
class Thread:
    """The calling thread: the GPU that it works on, and whether captures do not concern it."""

    gpu: int = 0
    freeing: bool = False


@dataclass
class Stream:
    """Work that nobody has waited for, and what is being captured."""

    queue: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None
    spoiled: bool = False  # a call within the capture was refused


@dataclass
class Event:
    time: float | None = None
    stream: int = 0


class FakeDevice:
    """`calls` lists what was asked of the device, `done` what it has carried out, in order."""

    name = "Fake GPU"
    capability = (8, 9)
    versions = "driver for CUDA 13.0, CUDA runtime 13.0"

    def __init__(self, index: int = 0, thread: Thread | None = None) -> None:
        """`thread`: of the GPUs of one machine, which share it."""
        self.index = index
        self.calls: list[str] = []
        self.done: list[str] = []
        self.blocks: Blocks = {}
        self.pins: Blocks = {}
        self.streams: dict[int, Stream] = {DEFAULT_STREAM: Stream()}
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.failures: list[tuple[str, int, str]] = []
        self.lost = ""
        self.clock = 0.0
        self.thread = Thread(index) if thread is None else thread
        self.elsewhere: dict[int, int] = {}  # addresses of memory that is another GPU's
        self._handle = 100
        self._graveyard: list[NDArray[np.uint8]] = []  # freed, kept so that no address comes twice

    # What tests ask of it.

    def fail(self, call: str, code: str = "cudaErrorMemoryAllocation", after: int = 0) -> None:
        """Let the call of that name, after so many good ones, fail once."""
        self.failures.append((call, after, code))

    def asked(self, action: Callable[[], Any]) -> list[str]:
        """What an action asks of the device."""
        before = len(self.calls)
        action()
        return self.calls[before:]

    def carried_out(self, action: Callable[[], Any]) -> list[str]:
        """What the device does meanwhile."""
        before = len(self.done)
        action()
        return self.done[before:]

    def leaks(self) -> list[str]:
        """What has not been given back."""
        streams = self.streams.keys() - {DEFAULT_STREAM}
        kinds = {
            "memory": self.blocks, "pinned memory": self.pins, "stream": streams,
            "event": self.events, "graph": self.graphs, "executable": self.executables,
        }  # fmt: skip
        return [name for name, live in kinds.items() for _ in live]

    def forget(self) -> None:
        """A context that was lost takes everything with it."""
        for stream in self.streams.values():
            stream.queue.clear()
        self.executables.clear()
        gc.collect()
        self.__init__(self.index)  # type: ignore[misc]

    def capturing(self) -> bool:
        return any(stream.captured is not None for stream in self.streams.values())

    def block(self, address: int, size: int = 0) -> NDArray[np.uint8]:
        """The bytes from an address to the end of its allocation, or so many of them."""
        for start, block in self.blocks.items():
            if start <= address < start + block.nbytes:
                found = block[address - start :]
                assert size <= found.nbytes, "beyond the end of an allocation"
                return found[: size or None]
        raise AssertionError("not the device's memory, or freed")

    def holds(self, address: int) -> bool:
        """Whether that is memory of this device, and not freed."""
        return any(at <= address < at + block.nbytes for at, block in self.blocks.items())

    # What other fakes ask of it.

    def enqueue(self, stream: int, label: str, action: Callable[[], None]) -> None:
        """Give a stream work, or a capture."""
        target = self.streams[stream]
        (target.queue if target.captured is None else target.captured).append((label, action))

    def called(self, call: str, in_capture: bool = True) -> None:
        self.calls.append(call)
        assert self.thread.gpu == self.index, f"{call} on another GPU"
        if self.lost:
            raise device_error(self.lost, "the context is gone", call)
        for i, (name, after, code) in enumerate(self.failures):
            if name == call.split()[0]:
                if after:
                    self.failures[i] = (name, after - 1, code)
                    continue
                del self.failures[i]
                self.lost = code if code in STICKY else ""
                raise device_error(code, "as the test wants it", call)
        if not in_capture and self.capturing() and not self.thread.freeing:
            for stream in self.streams.values():
                stream.spoiled = stream.captured is not None
            raise device_error("cudaErrorStreamCaptureUnsupported", "not permitted", call)

    # As `cuda.Device`.

    @contextmanager
    def current(self, freeing: bool = False) -> Iterator[None]:
        thread = self.thread
        before = thread.gpu, thread.freeing
        thread.gpu, thread.freeing = self.index, freeing
        try:
            yield
        finally:
            thread.gpu, thread.freeing = before

    def memory(self) -> tuple[int, int]:
        return BYTES - sum(block.nbytes for block in self.blocks.values()), BYTES

    def gpu_of(self, address: int) -> int | None:
        self.called("gpu_of")
        return self.elsewhere.get(address, self.index if self.holds(address) else None)

    def malloc(self, size: int) -> int:
        return self._allocate("malloc", self.blocks, size).ctypes.data

    def free(self, address: int) -> None:
        self._give_back("free", self.blocks, address)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return self._allocate("pinned", self.pins, size)

    def free_pinned(self, memory: NDArray[np.uint8]) -> None:
        self._give_back("free_pinned", self.pins, memory.ctypes.data)

    def stream(self) -> int:
        self.called("stream", in_capture=False)
        return self._added(self.streams, Stream())

    def destroy_stream(self, stream: int) -> None:
        self.called("destroy_stream")
        assert not self.streams.pop(stream).queue, "a stream was destroyed with work left"

    def synchronise(self, stream: int) -> None:
        self.called("synchronise", in_capture=False)
        queue = self.streams[stream].queue
        while queue:
            label, action = queue.pop(0)
            action()
            self.clock += 1e-3
            self.done.append(label)

    def event(self) -> int:
        self.called("event")
        return self._added(self.events, Event())

    def destroy_event(self, event: int) -> None:
        self.called("destroy_event")
        del self.events[event]

    def record(self, event: int, stream: int, captured: bool = False) -> None:
        self.called("record")
        if captured != (self.streams[stream].captured is not None):
            raise device_error("cudaErrorInvalidValue", "invalid argument", "recording an event")
        self.events[event].stream = stream
        self.enqueue(stream, "record", lambda: setattr(self.events[event], "time", self.clock))

    def elapsed(self, begin: int, end: int) -> float:
        self.called("elapsed", in_capture=False)
        first, last = self.events[begin].time, self.events[end].time
        if first is None or last is None:
            raise device_error("cudaErrorNotReady", "device not ready", "reading the time")
        return last - first

    def wait(self, stream: int, event: int) -> None:
        self.called(f"wait {event}")
        self.enqueue(stream, "wait", lambda: None)
        # The work before the event comes first, on whichever stream it is.
        other = self.events[event].stream
        if other != stream:
            queue = self.streams[other].queue
            self.streams[stream].queue.extend(queue)
            queue.clear()

    def memset(self, address: int, value: int, size: int, stream: int) -> None:
        self.called("memset")
        block = self.block(address, size)
        self.enqueue(stream, "memset", lambda: block.fill(value))

    def upload(self, address: int, source: NDArray[Any], stream: int) -> None:
        self._transfer("upload", address, source, stream)
        self._copy(stream, "upload", address, source.ctypes.data, source.nbytes, source)

    def download(self, target: NDArray[Any], address: int, stream: int) -> None:
        self._transfer("download", address, target, stream)
        self._copy(stream, "download", target.ctypes.data, address, target.nbytes, target)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        self.called("copy")
        self.block(target, size)
        self.block(source, size)
        self._copy(stream, "copy", target, source, size)

    def begin_capture(self, stream: int) -> None:
        self.called("begin_capture", in_capture=False)
        self.streams[stream].captured = []

    def end_capture(self, stream: int) -> int:
        self.called("end_capture")
        target = self.streams[stream]
        captured, target.captured = target.captured, None
        spoiled, target.spoiled = target.spoiled, False
        assert captured is not None, "nothing is being captured"
        if spoiled:
            raise device_error("cudaErrorStreamCaptureInvalidated", "spoiled before", "capturing")
        return self._added(self.graphs, captured)

    def abort_capture(self, stream: int) -> None:
        self.calls.append("abort_capture")
        self.streams[stream].captured, self.streams[stream].spoiled = None, False

    def instantiate(self, graph: int) -> int:
        work = self.graphs.pop(graph)
        self.called("instantiate", in_capture=False)
        return self._added(self.executables, work)

    def launch(self, executable: int, stream: int) -> None:
        self.called("launch")
        for label, action in self.executables[executable]:
            self.enqueue(stream, label, action)

    def destroy_executable(self, executable: int) -> None:
        self.called("destroy_executable")
        del self.executables[executable]

    def _allocate(self, call: str, table: Blocks, size: int) -> NDArray[np.uint8]:
        self.called(call, in_capture=False)
        raw = np.full(size + 512, 0xA5, np.uint8)  # what was there before is not zero
        start = -raw.ctypes.data % 256
        block = raw[start : start + size]
        table[block.ctypes.data] = block
        return block

    def _give_back(self, call: str, table: Blocks, address: int) -> None:
        self.called(call, in_capture=False)
        if not self.lost:
            assert not any(s.queue for s in self.streams.values()), "freed with work left"
        self._graveyard.append(table.pop(address))

    def _added(self, table: dict[int, Any], made: Any) -> int:
        self._handle += 1
        table[self._handle] = made
        return self._handle

    def _transfer(self, call: str, address: int, host: NDArray[Any], stream: int) -> None:
        self.called(call)
        assert host.flags.c_contiguous
        first = host.ctypes.data
        is_pinned = any(
            start <= first and first + host.nbytes <= start + block.nbytes
            for start, block in self.pins.items()
        )
        assert is_pinned or self.streams[stream].captured is None, "a capture of pageable memory"
        self.block(address, host.nbytes)

    def _copy(
        self, stream: int, label: str, target: int, source: int, size: int, alive: Any = None
    ) -> None:
        def move(_: Any = alive) -> None:
            if not self.lost:
                ctypes.memmove(target, source, size)

        self.enqueue(stream, label, move)
