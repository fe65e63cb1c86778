"""CUDA's Python bindings, played by the host: a stream's work waits until somebody waits for it.

So a result read without a synchronisation is stale, and memory freed too early is caught. Addresses
are real, so that ONNX Runtime's CPU sessions can play the stages.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sonomime.runtime.backends.cuda import DEFAULT_STREAM, STICKY

Work = tuple[str, Callable[[], None]]
BYTES = 10**9
NOT_IN_CAPTURES = {
    "Malloc", "Free", "HostAlloc", "FreeHost", "StreamCreateWithFlags", "StreamSynchronize",
    "EventElapsedTime", "StreamBeginCapture", "GraphInstantiate", "context",
}  # fmt: skip


class Refused(Exception):
    """A call fails with this code."""


class Status(int):
    """cudaError_t: an int with a name."""

    name: str

    def __new__(cls, name: str = "cudaSuccess") -> Status:
        status = super().__new__(cls, name != "cudaSuccess")
        status.name = name
        return status


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


class Held(NamedTuple):
    """What was made on a GPU and not yet given back."""

    kind: str
    gpu: int
    value: Any


class FakeCuda(types.ModuleType):
    """Stands for the modules `runtime` (version 13) and `driver` of cuda.bindings.

    `calls` lists what was asked for, without the prefix "cuda", and `done` what was carried out,
    both in order; calls that only ask for facts are not listed. What was made on a GPU may be used
    only while that is the `current` one.
    """

    cudaMemcpyKind = types.SimpleNamespace(
        cudaMemcpyHostToDevice="upload", cudaMemcpyDeviceToHost="download",
        cudaMemcpyDeviceToDevice="copy",
    )  # fmt: skip
    cudaStreamCaptureMode = types.SimpleNamespace(
        cudaStreamCaptureModeThreadLocal="thread", cudaStreamCaptureModeRelaxed="relaxed"
    )
    cudaMemoryType = types.SimpleNamespace(cudaMemoryTypeDevice=2, cudaMemoryTypeManaged=3)
    cudaStreamNonBlocking, cudaEventRecordExternal, cudaEventDefault = 1, 1, 0

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.count, self.driver, self.current, self.mode = 1, 13000, 0, "global"
        self.contexts: set[int] = set()  # GPUs that were used
        self.calls: list[str] = []
        self.done: list[str] = []
        self.failures: dict[str, tuple[int, str]] = {}
        self.elsewhere: dict[int, tuple[int, int]] = {}  # other memory: its type and GPU
        self.resets, self.clock, self.lost = 0, 0.0, ""
        self._handles = itertools.count(1 << 50)
        self._graveyard: list[Any] = []  # freed, kept so that no address comes twice
        self.live = {DEFAULT_STREAM: Held("default stream", 0, Stream())}
        self._facts: dict[str, Callable[..., tuple[Any, ...]]] = {
            "cudaGetDeviceCount": lambda: (self.count,),
            "cudaGetDevice": lambda: (self.current,),
            "cudaDriverGetVersion": lambda: (self.driver,),
            "cudaRuntimeGetVersion": lambda: (13050,),
            "cudaGetErrorString": lambda status: (b"as CUDA says it",),
            "cudaMemGetInfo": lambda: (BYTES - sum(b.nbytes for _, b in self.blocks()), BYTES),
            "cuDevicePrimaryCtxGetState": lambda index: (0, int(index in self.contexts)),
            "cudaGetDeviceProperties": lambda index: (properties(index),),
            "cudaPointerGetAttributes": lambda address: (self._place_of(address),),
        }

    # What tests ask of it.

    def fail(self, call: str, code: str = "cudaErrorMemoryAllocation", after: int = 0) -> None:
        """Let the call of that name, after so many good ones, fail once."""
        self.failures[call] = (after, code)

    def asked(self, action: Callable[[], Any], of: str = "calls") -> list[str]:
        """What an action asks for."""
        before = len(getattr(self, of))
        action()
        return list(getattr(self, of)[before:])

    def carried_out(self, action: Callable[[], Any]) -> list[str]:
        """What is carried out meanwhile."""
        return self.asked(action, "done")

    def leaks(self) -> list[str]:
        """What has not been given back."""
        return [held.kind for held in self.live.values() if held.kind != "default stream"]

    def forget(self) -> None:
        """A context that was lost takes everything with it."""
        gc.collect()
        self.lost = ""
        self._graveyard += [each.value for each in self.live.values() if "memory" in each.kind]
        self.live = {DEFAULT_STREAM: Held("default stream", 0, Stream())}

    def streams(self) -> list[Stream]:
        return [each.value for each in self.live.values() if "stream" in each.kind]

    def capturing(self) -> bool:
        return any(stream.captured is not None for stream in self.streams())

    def blocks(self, kind: str = "memory") -> list[tuple[int, NDArray[np.uint8]]]:
        return [(at, each.value) for at, each in self.live.items() if each.kind == kind]

    def block(self, address: int, size: int = 0, kind: str = "memory") -> NDArray[np.uint8]:
        """The bytes from an address to the end of its allocation, or so many of them."""
        for start, block in self.blocks(kind):
            if start <= address < start + block.nbytes:
                found = block[address - start :]
                assert size <= found.nbytes, "beyond the end of an allocation"
                return found[: size or None]
        raise AssertionError(f"not {kind}, or freed")

    def holds(self, address: int, kind: str = "memory") -> bool:
        return any(at <= address < at + block.nbytes for at, block in self.blocks(kind))

    # What other fakes ask of it.

    def enqueue(self, stream: int, label: str, action: Callable[[], None]) -> None:
        """Give a stream work, or a capture."""
        target = self.live[stream].value
        (target.queue if target.captured is None else target.captured).append((label, action))

    def called(self, call: str, *given: Any) -> None:
        """Raises Refused where CUDA would fail."""
        self.calls.append(call)
        self.contexts.add(self.current)
        made_on = {self.live[each].gpu for each in given if each in self.live}
        assert made_on <= {self.current} or DEFAULT_STREAM in given, f"{call} on another GPU"
        assert self.mode != "global", f"{call} is forbidden while another thread captures"
        if self.lost:
            raise Refused(self.lost)
        self._fail_as_planned(call)
        if call in NOT_IN_CAPTURES and self.capturing() and self.mode != "relaxed":
            for stream in self.streams():
                stream.spoiled = stream.captured is not None
            raise Refused("cudaErrorStreamCaptureUnsupported")

    def _fail_as_planned(self, call: str) -> None:
        after, code = self.failures.pop(call, (0, ""))
        if after:
            self.failures[call] = (after - 1, code)
        elif code:
            self.lost = code if code in STICKY else ""
            raise Refused(code)

    # As cuda.bindings.

    def __getattr__(self, name: str) -> Any:
        """A call: a fact, or the method of its name below; the result comes with a status."""
        fact, short = self.__dict__.get("_facts", {}).get(name), name.removeprefix("cuda")
        call = fact or getattr(type(self), short)

        def answer(*given: Any) -> Any:
            try:
                if fact is not None:
                    self._fail_as_planned(short)
                    return Status(), *fact(*given)
                self.called(short, *given)
                made = call(self, *given)
            except Refused as refused:
                return Status(str(refused)), None
            return (Status(),) if made is None else (Status(), made)

        return answer

    def cudaSetDevice(self, index: int) -> Any:
        self.current = index
        self.contexts.add(index)
        return (Status(),)

    def cudaThreadExchangeStreamCaptureMode(self, mode: str) -> Any:
        before, self.mode = self.mode, mode
        return Status(), before

    def cudaGetLastError(self) -> Any:
        self.resets += 1
        return (Status(),)

    def _place_of(self, address: int) -> Any:
        ours = (2 if self.holds(address) else 0, self.current)
        kind, gpu = self.elsewhere.get(address, ours)
        return types.SimpleNamespace(type=kind, device=gpu)

    def Malloc(self, size: int, kind: str = "memory") -> int:
        raw = np.full(size + 512, 0xA5, np.uint8)  # what was there before is not zero
        start = -raw.ctypes.data % 256
        return self._add(kind, raw[start : start + size], raw.ctypes.data + start)

    def HostAlloc(self, size: int, flags: int) -> int:
        return self.Malloc(size, "pinned memory")

    def Free(self, address: int) -> None:
        assert not any(stream.queue for stream in self.streams()), "freed with work left"
        self._remove(address)

    FreeHost = Free

    def StreamCreateWithFlags(self, flags: int) -> int:
        assert flags == self.cudaStreamNonBlocking
        return self._add("stream", Stream())

    def StreamDestroy(self, stream: int) -> None:
        assert not self._remove(stream).queue, "a stream was destroyed with work left"

    def StreamSynchronize(self, stream: int) -> None:
        queue = self.live[stream].value.queue
        while queue:
            label, action = queue.pop(0)
            action()
            self.clock += 1.0
            self.done.append(label)

    def EventCreate(self) -> int:
        return self._add("event", Event())

    def EventRecordWithFlags(self, event: int, stream: int, flags: int) -> None:
        external = flags == self.cudaEventRecordExternal
        if external != (self.live[stream].value.captured is not None):
            raise Refused("cudaErrorInvalidValue")
        noted = self.live[event].value
        noted.stream = stream
        self.enqueue(stream, "record", lambda: setattr(noted, "time", self.clock))

    def EventElapsedTime(self, begin: int, end: int) -> float:
        first, last = (self.live[each].value.time for each in (begin, end))
        if first is None or last is None:
            raise Refused("cudaErrorNotReady")
        return float(last - first)

    def StreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        self.enqueue(stream, "wait", lambda: None)
        # The work before the event comes first, on whichever stream it is.
        other = self.live[event].value.stream
        if other != stream:
            queue = self.live[other].value.queue
            self.live[stream].value.queue.extend(queue)
            queue.clear()

    def MemsetAsync(self, address: int, value: int, size: int, stream: int) -> None:
        block = self.block(address, size)
        self.enqueue(stream, "memset", lambda: block.fill(value))

    def MemcpyAsync(self, to: int, of: int, size: int, kind: str, stream: int) -> None:
        for address, on_host in ((to, kind == "download"), (of, kind == "upload")):
            if not on_host:
                self.block(address, size)
            elif self.live[stream].value.captured is not None:
                self.block(address, size, "pinned memory")

        def move() -> None:
            if not self.lost:
                ctypes.memmove(to, of, size)

        self.enqueue(stream, kind, move)

    def StreamBeginCapture(self, stream: int, mode: str) -> None:
        assert mode == "thread"
        self.live[stream].value.captured = []

    def StreamEndCapture(self, stream: int) -> int:
        target = self.live[stream].value
        captured, target.captured = target.captured, None
        spoiled, target.spoiled = target.spoiled, False
        if captured is None or spoiled:
            raise Refused("cudaErrorStreamCaptureInvalidated")
        return self._add("graph", captured)

    def GraphInstantiate(self, graph: int, flags: int) -> int:
        return self._add("executable", self.live[graph].value)

    def GraphLaunch(self, executable: int, stream: int) -> None:
        for label, action in self.live[executable].value:
            self.enqueue(stream, label, action)

    def _add(self, kind: str, made: Any, address: int = 0) -> int:
        handle = address or next(self._handles)
        self.live[handle] = Held(kind, self.current, made)
        return handle

    def _remove(self, handle: int) -> Any:
        value = self.live.pop(handle).value
        if isinstance(value, np.ndarray):
            self._graveyard.append(value)
        return value

    EventDestroy = GraphDestroy = GraphExecDestroy = _remove


def properties(gpu: int) -> Any:
    name = b"Fake GPU %d\0" % gpu if gpu else b"Fake GPU\0"
    return types.SimpleNamespace(name=name, major=8, minor=9 - gpu)
