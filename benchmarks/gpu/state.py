"""What the GPU did while it was timed: clocks, power, temperature, and why it slowed down.

Without these a time says little: a GPU that idles, is hot or capped runs at half its clock. They
come from nvidia-smi; without it the record says so.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter, sleep
from typing import Any, Self

TOOL = "nvidia-smi"
EVERY_MS = 100
START_SECONDS = 5.0  # at most, until the first reading

_WORDS = ("name", "driver_version", "pstate")
_NUMBERS = (
    "clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "power.limit", "temperature.gpu",
    "utilization.gpu", "memory.used",
)  # fmt: skip
# Newer drivers have renamed it.
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
_BITS = {
    0x1: "idle", 0x2: "clocks as set", 0x4: "power cap", 0x8: "hardware slowdown",
    0x10: "sync boost", 0x20: "software thermal", 0x40: "hardware thermal",
    0x80: "power brake", 0x100: "display clock",
}  # fmt: skip
_HARMLESS = {"idle", "clocks as set", "sync boost", "display clock"}


def read_state() -> dict[str, Any]:
    """One reading of the GPU that CUDA calls its first, or `{"absent": reason}`."""
    return _query(0)[1]


def _query(device: int) -> tuple[list[str], dict[str, Any]]:
    """The command that works here and its reading; or no command, and why none works."""
    tool = shutil.which(TOOL)
    if tool is None:
        return [], {"absent": f"there is no {TOOL}"}
    absent = f"{TOOL} gives no reading"
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    number = (visible[device] if device < len(visible) else "") or str(device)
    for reasons in _REASONS:
        fields = ",".join((*_WORDS, *_NUMBERS, reasons))
        command = [tool, f"--id={number}", "--format=csv,noheader,nounits", f"--query-gpu={fields}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            return [], {"absent": f"{TOOL}: {error}"}
        said = (done.stdout or done.stderr).strip().splitlines()
        if done.returncode == 0 and said:
            return command, parse_line(said[0])
        absent = said[0] if said else absent
    return [], {"absent": absent}


def parse_line(line: str) -> dict[str, Any]:
    """A line of nvidia-smi's CSV; what the GPU does not support is None."""
    values = next(csv.reader([line], skipinitialspace=True))
    found: dict[str, Any] = dict(zip((*_WORDS, *_NUMBERS, "slowed_by"), values, strict=False))
    for name in found.keys() - set(_WORDS):
        text, found[name] = found[name], None
        with suppress(ValueError):  # [N/A], [Not Supported]
            if name == "slowed_by":
                found[name] = [word for bit, word in _BITS.items() if bit & int(text, 16)]
            else:
                found[name] = float(text)
    return found


class Watch:
    """Reads the state throughout a block; `summary` is there when the block ends.

    The block begins after the first reading, which is left out: the tool takes as long to start as
    hundreds of frames. A short block gets the reading that comes right after it.
    """

    def __init__(self, device: int = 0) -> None:
        """Of the GPU of that number, as CUDA counts."""
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None
        self.summary: dict[str, Any] = {}

    def __enter__(self) -> Self:
        command, self.summary = _query(self._device)
        if command:
            self._file = tempfile.TemporaryFile()
            command.append(f"--loop-ms={EVERY_MS}")
            self._process = subprocess.Popen(command, stdout=self._file, stderr=subprocess.DEVNULL)
            self._before = self._wait_for_more_than(0)
        return self

    def _wait_for_more_than(self, count: int) -> int:
        """Returns the number of whole lines."""
        late = perf_counter() + START_SECONDS
        assert self._process is not None
        while (found := len(self._lines())) <= count and self._process.poll() is None:
            if perf_counter() > late:
                break
            sleep(EVERY_MS / 1e4)
        return found

    def _lines(self) -> list[str]:
        size = os.fstat(self._file.fileno()).st_size
        return os.pread(self._file.fileno(), size, 0).decode(errors="replace").split("\n")[:-1]

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._wait_for_more_than(self._before)
            self._process.terminate()
            self._process.wait()
            lines = [line for line in self._lines()[self._before :] if "," in line]
            self._file.close()
            self.summary = summarise_readings([parse_line(line) for line in lines])


def summarise_readings(readings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Least, middle and greatest of every number; all reasons for slowing down."""
    if not readings:
        return {"absent": "there was no time for a reading"}
    summary: dict[str, Any] = {"readings": len(readings)}
    for name in _NUMBERS:
        values = sorted(r[name] for r in readings if r.get(name) is not None)
        if values:
            middle = values[len(values) // 2]
            summary[name] = {"min": values[0], "median": middle, "max": values[-1]}
    slowed = {reason for reading in readings for reason in reading.get("slowed_by") or ()}
    return summary | {"slowed_by": sorted(slowed), "throttled": bool(slowed - _HARMLESS)}


def state_line(summary: dict[str, Any]) -> str:
    """The summary as text."""
    if "absent" in summary:
        return f"clocks and power: {summary['absent']}"
    parts = [
        f"{word} {span['min']:.0f} to {span['max']:.0f} {unit}"
        for word, name, unit in (("clock", "clocks.sm", "MHz"), ("power", "power.draw", "W"))
        if (span := summary.get(name))
    ]
    return ", ".join([*parts, f"slowed by: {', '.join(summary['slowed_by']) or 'nothing'}"])
