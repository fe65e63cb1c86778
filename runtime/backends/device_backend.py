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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import DRIVING_FRAME, FRAME
from ..support.errors import BackendError
from .arrays import DeviceArray, device_array
from .base import EnlargedSource
from .cuda import LOST, Device, DeviceError
from .device_composer import DeviceComposer
from .device_memory import DeviceMemory

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
    """See `Backend`. It also takes and gives arrays on the device, and may compose frames there.

    A subclass opens the stages and enqueues one.
    """

    name: str
    again: Callable[[], DeviceBackend]
    """Opens the same once more."""
    captures = True
    """Whether `_enqueue` may be called while the stream is captured."""

    def __init__(self, bundle: Bundle, device: Device, software: str) -> None:
        """Allocate everything and open the stages. After a BackendError (out of memory, or a stage
        that cannot be opened) everything is given back."""
        major, minor = device.capability
        self.device = f"{device.name} (sm_{major}{minor}), {software}, {device.versions}"
        self.precision: str = bundle.manifest.precision
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
        self._seconds = {stage.name: 0.0 for stage in manifest.stages if stage.per_frame}
        self._recurrent = [(pair.from_, pair.to) for pair in manifest.recurrent]
        self._given = frozenset(manifest.given())
        self._captures = self.captures and os.environ.get(GRAPH_VARIABLE) != "0"
        self._graphs: dict[Variant, int] = {}
        self._failed: Counter[Variant] = Counter()  # captures, since the last good one
        self._warm = False
        self._timed = False  # whether the events are of a frame whose times were not yet read
        self._put: set[str] = set()
        self._taken: DeviceArray | None = None
        self._in_use: list[DeviceArray] = []  # until the stream has been waited for
        self._compose_next = False
        self._composed = False  # whether the layers, as they are now, have been composed
        with alone, device.current():
            self._stream = device.stream(self._release)
            self._end = weakref.finalize(self, give_back, device, self._stream, self._release)
            # At the end of the program the driver takes all of it back; until then a daemon thread
            # may still use it.
            self._end.atexit = False
            try:
                self._memory = DeviceMemory(device, manifest, self._stream, self._release)
                self._joined = device.event(self._release)
                self._events = [device.event(self._release) for _ in range(len(self._seconds) + 1)]
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
        """Give the stream one stage's work, or raise a BackendError; wait for nothing."""

    def _check_capture(self) -> None:  # noqa: B027 (a backend may have nothing to check)
        """Raise a BackendError if a stage cannot be captured now."""

    @property
    def captured(self) -> bool:
        """Whether the last frames ran as one CUDA graph."""
        return bool(self._graphs)

    @property
    def seconds(self) -> Mapping[str, float]:
        # Asking CUDA costs about as much as launching a frame, so the frame itself never asks.
        if self._timed:
            try:
                with self._device.current():
                    found = [self._device.elapsed(*pair) for pair in pairwise(self._events)]
            except DeviceError:  # another frame has begun, or the GPU is lost: the last times stay
                return self._seconds
            self._timed = False
            self._seconds.update(zip(self._seconds, found, strict=True))
        return self._seconds

    def view(self, tensor: str) -> NDArray[Any]:
        return self._memory.views[tensor]

    def read(self, tensor: str) -> NDArray[Any]:
        if tensor in self._given and tensor not in self._put:
            return self._memory.views[tensor].copy()
        with self._guard():
            return self._memory.read(tensor)

    def write(self, tensor: str, value: ArrayLike) -> None:
        if tensor in self._given:
            self._put.discard(tensor)
            self._memory.views[tensor][...] = value
            return
        self._composed = False
        with self._guard():
            self._memory.write(tensor, value)
            if tensor == FRAME:
                self._memory.views[FRAME][...] = value

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
            if self._captures and self._warm and variant not in self._graphs:
                self._capture(variant)
            if variant in self._graphs:
                self._device.launch(self._graphs[variant], self._stream)
            else:
                self._enqueue_frame(variant, captured=False)
            if taken is not None:
                here = self._memory.address(FRAME)
                self._device.copy(taken.address, here, taken.nbytes, self._stream)
            self._finish()
            self._warm, self._timed, self._composed = True, True, compose

    def adopt(self, value: Any, what: str, writable: bool = False) -> DeviceArray:
        """Check the caller's array; see `arrays.device_array`."""
        with self._guard():
            return device_array(value, what, self._device, self._stream, writable)

    def put(self, tensor: str, array: DeviceArray | None) -> None:
        """Copy an input's value from the array, in stream order. Its view is not uploaded from then
        on, until None is put."""
        if array is None:
            self._put.discard(tensor)
            return
        with self._guard():
            self._join(array)
            here = self._memory.address(tensor)
            self._device.copy(here, array.address, array.nbytes, self._stream)
            self._put.add(tensor)

    def take(self, array: DeviceArray) -> None:
        """Let the next `run_frame` copy the frame to the array, in stream order. It is not
        downloaded then, and its view is stale."""
        with self._guard():
            self._join(array)
            self._taken = array

    @property
    def can_compose(self) -> bool:
        """Whether it can compose frames of the layers; if not, none of what follows may be used."""
        return self._composer.serves

    def compose_over(self, source: EnlargedSource) -> None:
        """Take the source that frames are composed over from now on. After a BackendError (out of
        memory, or no code for this GPU) `can_compose` is False."""
        # The composer gives back the graphs that composed over the last source.
        self._graphs = {key: graph for key, graph in self._graphs.items() if key[1] != COMPOSED}
        self._composed = False
        with alone, self._guard():
            self._composer.take(source)

    def compose_next(self, wanted: bool) -> None:
        """Whether the next `run_frame` composes too, as a part of the frame. The model's own frame
        is not downloaded then, and its view is stale."""
        self._compose_next = wanted

    def composed(self) -> NDArray[np.uint8]:
        """The frame of the layers as the last run left them, (height, width[, 3]); a new array."""
        if not self._composed:
            with self._guard():
                self._composer.enqueue()
                self._finish()
            self._composed = True
        return self._composer.frame.copy()

    def another(self) -> DeviceBackend:
        return self.again()

    def close(self) -> None:
        """Wait for the device and give everything back, as when it is dropped; raises nothing."""
        _ = self.seconds  # the last frame's, while its events are there
        with alone:  # closing may wait for the whole GPU, which spoils captures
            self._end()
        self._timed = self._composed = False
        self._graphs.clear()
        self._put.clear()
        self._in_use.clear()

    def _enqueue_frame(self, variant: Variant, captured: bool) -> None:
        """The frame, call by call: to be run, or to be captured."""
        from_host, down = variant
        self._memory.upload_inputs(from_host)
        self._device.record(self._events[0], self._stream, captured)
        for stage, event in zip(self._seconds, self._events[1:], strict=True):
            self._enqueue(stage)
            self._device.record(event, self._stream, captured)
        for made, state in self._recurrent:
            self._memory.copy(made, state)
        if down == FRAME:
            self._memory.download(FRAME)
        elif down == COMPOSED:
            self._composer.enqueue()

    def _capture(self, variant: Variant) -> None:
        """Capture one frame. What fails TRIES times in a row is run call by call from then on."""
        # Else a later frame is soon enough.
        if self._failed[variant] >= TRIES or not alone.acquire(blocking=False):
            return
        try:
            self._check_capture()
            release = self._composer.release if variant[1] == COMPOSED else self._release
            self._graphs[variant] = self._device.capture(
                self._stream, lambda: self._enqueue_frame(variant, captured=True), release
            )
            self._failed[variant] = 0
        except BackendError as error:
            if isinstance(error, DeviceError) and error.lost:
                raise
            self._failed[variant] += 1
            if self._failed[variant] < TRIES:
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
                if isinstance(error, DeviceError) and error.lost:
                    self._lost = error.message
                    raise
                try:
                    self._finish()
                except DeviceError as later:
                    if later.lost:
                        self._lost = later.message
                        # The stage's own error comes first; that the GPU is gone matters more.
                        both = f"{error.message}; {later.message}"
                        raise BackendError(both, LOST) from error
                raise


def give_back(device: Device, stream: int, release: ExitStack) -> None:
    """Wait for the device, then give everything back. The backend may be gone already. Takes no
    lock: the garbage collector may call it while any lock is held."""
    with device.current(freeing=True):
        steps: tuple[Callable[[], None], ...] = (lambda: device.synchronise(stream), release.close)
        for step in steps:  # all of it, whatever fails on the way
            try:
                step()
            except DeviceError as error:
                log.debug("while closing: %s", error.message)
                if error.lost:
                    return
