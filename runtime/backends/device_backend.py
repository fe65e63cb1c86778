"""What all backends on a GPU share: a whole frame in stream order, with one synchronisation.

A frame is one upload, the per-frame stages, the recurrent copies and one download, on a stream of
the backend's own. After one plain frame it is captured as a CUDA graph, and from then on launched
as one. The source's state and every tensor between the stages stay on the device.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import DRIVING_FRAME, FRAME
from ..support.errors import BackendError
from .arrays import DeviceArray, device_array
from .base import EnlargedSource
from .cuda import Device
from .cuda_errors import LOST, DeviceError
from .device_composer import DeviceComposer
from .device_memory import DeviceMemory
from .event_spans import EventSpans

log = logging.getLogger("sonomime")

GRAPH_VARIABLE = "SONOMIME_CUDA_GRAPH"
"""Set it to 0, and every frame is run call by call, for debugging."""

TRIES = 2
"""Captures that may fail in a row: another thread can spoil one, but hardly the next as well."""

COMPOSED = "composed"

Variant = tuple[bool, str]
"""Whether the driving frame comes from the host, and what goes there: FRAME, COMPOSED or ""."""

alone = threading.RLock()
"""Held while stages are opened and while something is captured: opening may wait for the whole
device, as ONNX Runtime does, which spoils the captures of all threads."""


class DeviceBackend(ABC):
    """See `Backend`, `TakesDeviceArrays` and `ComposesFrames`. A subclass opens the stages and
    enqueues one."""

    name: str
    threads = 1
    captures = True
    """Whether `_enqueue` may be called while the stream is captured."""

    def __init__(self, bundle: Bundle, device: Device, software: str) -> None:
        """Allocate everything and open the stages; on failure everything is given back.

        Raises:
            BackendError: out of memory, or a stage cannot be opened.
        """
        major, minor = device.capability
        self.device = f"{device.name} (sm_{major}{minor}), {software}, {device.versions}"
        self._device = device
        self._release = ExitStack()
        # What a library holds for each stage. Keep it nowhere else: it must go before the memory.
        self._opened: dict[str, Any] = {}
        # One reference more, so that it is destroyed when given back and never else: on a lost GPU,
        # or at the end of the program, ONNX Runtime's destructors would end the process.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))
        self._lost = ""
        manifest = bundle.manifest
        self._stages = {stage.name: stage for stage in manifest.stages}
        self._per_frame = [stage.name for stage in manifest.stages if stage.per_frame]
        self._recurrent = [(pair.from_, pair.to) for pair in manifest.recurrent]
        self._given = frozenset(manifest.given())
        self._graphs: dict[Variant, int] = {}
        self._warm = False
        plain = not self.captures or os.environ.get(GRAPH_VARIABLE) == "0"
        # Counted for each kind: composing that cannot be captured leaves plain frames their graph.
        self._tries = dict.fromkeys((FRAME, COMPOSED, ""), 0 if plain else TRIES)
        self._put: set[str] = set()
        self._taken: tuple[str, DeviceArray] | None = None
        self._in_use: list[DeviceArray] = []  # until the stream has been waited for
        self._compose_next = False
        self._composed = False  # whether the layers, as they are now, have been composed
        self._spans = EventSpans(device, self._per_frame)
        with alone, device.current():
            self._stream = device.stream()
            self._release.callback(device.destroy_stream, self._stream)
            self._end = weakref.finalize(
                self, give_back, device, self._stream, self._spans, self._release
            )
            # At the end of the program the driver takes all of it back; until then a daemon thread
            # may still use it.
            self._end.atexit = False
            try:
                self._memory = DeviceMemory(device, manifest, self._stream, self._release)
                self._joined = self._event()
                self._spans.events = [self._event() for _ in range(len(self._per_frame) + 1)]
                self._release.callback(self._opened.clear)
                self._open_stages(bundle)
                self._composer = DeviceComposer(
                    manifest, device, self._memory, self._stream, self._release
                )
                device.synchronise(self._stream)
            except BaseException:
                self.close()
                raise

    @abstractmethod
    def _open_stages(self, bundle: Bundle) -> None:
        """Open every stage, with `self._memory` and `self._stream`, into `self._opened`."""

    @abstractmethod
    def _enqueue(self, stage: str) -> None:
        """Give the stream one stage's work; wait for nothing.

        Raises:
            BackendError: it cannot be enqueued.
        """

    def _check_capture(self) -> None:  # noqa: B027 (a backend may have nothing to check)
        """Raise a BackendError if a stage cannot be captured now."""

    @property
    def captured(self) -> bool:
        """Whether the last frames ran as one CUDA graph."""
        return any(self._tries[down] for _, down in self._graphs)

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._spans

    def view(self, tensor: str) -> NDArray[Any]:
        return self._memory.view(tensor)

    def read(self, tensor: str) -> NDArray[Any]:
        if tensor in self._given and tensor not in self._put:
            return self._memory.view(tensor).copy()
        with self._guard():
            return self._memory.read(tensor)

    def write(self, tensor: str, value: ArrayLike) -> None:
        if tensor in self._given:
            self._put.discard(tensor)
            self._memory.view(tensor)[...] = value
            return
        self._composed = False
        with self._guard():
            self._memory.write(tensor, value)
            if tensor == FRAME:
                self._memory.view(FRAME)[...] = value

    def copy(self, source: str, target: str) -> None:
        self._composed = False
        with self._guard():
            self._memory.copy(source, target)

    def run(self, stage: str) -> None:
        self._composed = False
        with self._guard():
            for tensor in self._stages[stage].inputs:
                if tensor.name in self._given and tensor.name not in self._put:
                    self._memory.upload(tensor.name)
            self._enqueue(stage)
            if any(tensor.name == FRAME for tensor in self._stages[stage].outputs):
                self._memory.download(FRAME)
            self._finish()

    def run_frame(self) -> None:
        taken, self._taken = self._taken, None
        compose, self._compose_next, self._composed = self._compose_next, False, False
        down = COMPOSED if compose else FRAME if taken is None else ""
        variant = (DRIVING_FRAME not in self._put, down)
        with self._guard():
            if self._tries[down] and self._warm and variant not in self._graphs:
                self._capture(variant)
            if self._tries[down] and variant in self._graphs:
                self._device.launch(self._graphs[variant], self._stream)
            else:
                self._enqueue_frame(variant, captured=False)
            if taken is not None:
                tensor, array = taken
                here = self._memory.address(tensor)
                self._device.copy(array.address, here, array.nbytes, self._stream)
            self._finish()
            self._warm, self._composed = True, compose
            self._spans.passed()

    def adopt(self, value: Any, what: str, writable: bool = False) -> DeviceArray:
        with self._guard():
            return device_array(value, what, self._device, self._stream, writable)

    def put(self, tensor: str, array: DeviceArray | None) -> None:
        if array is None:
            self._put.discard(tensor)
            return
        with self._guard():
            self._join(array)
            here = self._memory.address(tensor)
            self._device.copy(here, array.address, array.nbytes, self._stream)
            self._put.add(tensor)

    def take(self, tensor: str, array: DeviceArray) -> None:
        with self._guard():
            self._join(array)
            self._taken = (tensor, array)

    @property
    def can_compose(self) -> bool:
        return self._composer.serves

    def compose_over(self, source: EnlargedSource) -> None:
        # The composer gives back the graphs that composed over the last source.
        self._graphs = {key: graph for key, graph in self._graphs.items() if key[1] != COMPOSED}
        self._composed = False
        with alone, self._guard():
            self._composer.take(source)

    def compose_next(self, wanted: bool) -> None:
        self._compose_next = wanted

    def composed(self) -> NDArray[np.uint8]:
        if not self._composed:
            with self._guard():
                self._composer.enqueue()
                self._finish()
            self._composed = True
        return self._composer.frame.copy()

    def close(self) -> None:
        """Wait for the device and give everything back, as when it is dropped; raises nothing."""
        with alone:  # closing may wait for the whole GPU, which spoils captures
            self._end()
        self._composed = False
        self._graphs.clear()
        self._put.clear()
        self._in_use.clear()

    def _enqueue_frame(self, variant: Variant, captured: bool) -> None:
        """The frame, call by call: to be run, or to be captured."""
        from_host, down = variant
        events, device = self._spans.events, self._device
        self._memory.upload_inputs(from_host)
        device.record(events[0], self._stream, captured)
        for stage, event in zip(self._per_frame, events[1:], strict=True):
            self._enqueue(stage)
            device.record(event, self._stream, captured)
        for made, state in self._recurrent:
            self._memory.copy(made, state)
        if down == FRAME:
            self._memory.download(FRAME)
        elif down == COMPOSED:
            self._composer.enqueue()

    def _capture(self, variant: Variant) -> None:
        """Capture one frame. What fails TRIES times in a row is run call by call from then on."""
        device = self._device
        if not alone.acquire(blocking=False):
            return  # a later frame is soon enough
        try:
            self._check_capture()
            device.begin_capture(self._stream)
            try:
                self._enqueue_frame(variant, captured=True)
                graph = device.end_capture(self._stream)
            except BaseException:
                device.abort_capture(self._stream)
                raise
            self._graphs[variant] = device.instantiate(graph)
            release = self._composer.release if variant[1] == COMPOSED else self._release
            release.callback(device.destroy_executable, self._graphs[variant])
            self._tries[variant[1]] = TRIES
        except BackendError as error:
            if isinstance(error, DeviceError) and error.lost:
                raise
            self._tries[variant[1]] -= 1
            if self._tries[variant[1]]:
                log.info("not captured, to be tried once more: %s", error.message)
            else:
                log.warning("frames run without a CUDA graph: %s", error.message)
        finally:
            alone.release()

    def _join(self, array: DeviceArray) -> None:
        """Let our stream wait for others' work on the array; keep the array until `_finish`."""
        if array.stream not in (None, self._stream):
            self._device.record(self._joined, array.stream)
            self._device.wait(self._stream, self._joined)
        self._in_use.append(array)

    def _finish(self) -> None:
        """Wait for the stream; arrays of the caller are not used any more."""
        self._device.synchronise(self._stream)
        self._in_use.clear()

    def _event(self) -> int:
        event = self._device.event()
        self._release.callback(self._device.destroy_event, event)
        return event

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Refuse to go on once the GPU is lost; wait for what a failed call had begun."""
        if self._lost:
            raise BackendError(self._lost, LOST)
        # The caller's thread may use another GPU, and goes on with that one.
        with self._device.current():
            try:
                yield
            except BackendError as error:
                self._taken = None
                lost: BackendError = error
                if not (isinstance(error, DeviceError) and error.lost):
                    try:
                        self._finish()
                    except DeviceError as later:
                        lost = later
                if not (isinstance(lost, DeviceError) and lost.lost):
                    raise
                self._lost = lost.message
                if lost is error:
                    raise
                # The stage's own error comes first; that the GPU is gone matters more.
                raise BackendError(f"{error.message}; {lost.message}", LOST) from error


def give_back(device: Device, stream: int, spans: EventSpans, release: ExitStack) -> None:
    """Wait for the device, then give everything back. The backend may be gone already. Takes no
    lock: the garbage collector may call it while any lock is held."""
    with device.current(freeing=True):
        try:
            device.synchronise(stream)
        except DeviceError as error:
            log.debug("while closing: %s", error.message)
            if error.lost:
                return
        spans.freeze()
        try:
            release.close()  # all of it, whatever fails on the way
        except DeviceError as error:
            log.debug("while closing: %s", error.message)
