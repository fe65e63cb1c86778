"""Giving back what a backend holds of a GPU, in an order that is safe, whenever that is."""

from __future__ import annotations

import ctypes
import logging
from contextlib import ExitStack
from typing import Any

from .cuda import Device
from .cuda_errors import DeviceError
from .event_spans import EventSpans

log = logging.getLogger("sonomime")


def give_back(device: Device, stream: int, spans: EventSpans, release: ExitStack) -> None:
    """Wait for the device, then give everything back; knows nothing of the backend, which may be
    gone. Takes no lock: the garbage collector may call it in the middle of whatever holds it."""
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


def keep_for_good(opened: dict[str, Any]) -> None:
    """Destroy what was opened when it is given back, and never else: upon a GPU that is lost, which
    nobody may know of at the end of the program, destructors of ONNX Runtime throw, and C++ ends
    the process then."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened))
