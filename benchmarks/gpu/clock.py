"""Seconds on a device: by events on a GPU, by the host's clock else."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch


class Clock:
    """A span that begins now."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._began = self._now()

    def _now(self) -> Any:  # an event of torch's, or seconds
        if not self._gpu:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def stop(self) -> Callable[[], float]:
        """End it; the result tells the seconds, once the device has got there."""
        began, end = self._began, self._now()
        return lambda: began.elapsed_time(end) / 1e3 if self._gpu else end - began


def median_seconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of what is enqueued on the current stream."""
    spans = []
    for _ in range(repeats):
        clock = Clock(device)
        call()
        spans.append(clock.stop())
    if device.type == "cuda":
        torch.cuda.synchronize()
    return median(span() for span in spans)
