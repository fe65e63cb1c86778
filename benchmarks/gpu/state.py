"""What the GPU did while it was timed: clocks, power, temperature and why it slowed down.

A time without these says little: a GPU that idles, is hot or capped runs at half its clock. They
come from nvidia-smi; where there is none, that is what the record says.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Self

TOOL = "nvidia-smi"
EVERY_MS = 100
FIRST_SECONDS = 5.0  # waited for, that the first reading may come

_NUMBERS = (
    "clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "power.limit", "temperature.gpu",
    "utilization.gpu", "memory.used",
)  # fmt: skip
_WORDS = ("name", "driver_version", "pstate")
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
    query = _query(0)
    return query if isinstance(query, dict) else query[1]


def _query(device: int) -> dict[str, Any] | tuple[list[str], dict[str, Any]]:
    """The command that works here, and its reading; else why none does."""
    tool = shutil.which(TOOL)
    if tool is None:
        return {"absent": f"there is no {TOOL}"}
    absent = f"{TOOL} gives no reading"
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    number = (visible[device] if device < len(visible) else "") or str(device)
    for reasons in _REASONS:
        fields = ",".join((*_WORDS, *_NUMBERS, reasons))
        command = [tool, f"--id={number}", "--format=csv,noheader,nounits", f"--query-gpu={fields}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            return {"absent": f"{TOOL}: {error}"}
        said = (done.stdout or done.stderr).strip().splitlines()
        if done.returncode == 0 and said:
            return command, parse_line(said[0])
        absent = said[0] if said else absent
    return {"absent": absent}


def parse_line(line: str) -> dict[str, Any]:
    """A line of nvidia-smi's CSV as a table; what it does not support is None."""
    values = next(csv.reader([line], skipinitialspace=True))
    read = dict.fromkeys(_NUMBERS, _number) | {"slowed_by": _slowed_by}
    named = zip((*_WORDS, *_NUMBERS, "slowed_by"), values, strict=False)
    return {name: read.get(name, str)(value) for name, value in named}


class Watch:
    """Reads the state all along a block; `summary` is there when the block ends.

    The block begins with the first reading, which is of the GPU before it and is left out: the tool
    takes as long to start as hundreds of frames. A block too short for another is given the one
    that comes right after it.
    """

    def __init__(self, device: int = 0) -> None:
        """Of the GPU of that number, as CUDA counts."""
        self._device = device
        self.summary: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        query = _query(self._device)
        if isinstance(query, dict):
            self.summary = query
            return self
        command = [*query[0], f"--loop-ms={EVERY_MS}"]
        self._folder = tempfile.TemporaryDirectory()
        with Path(self._folder.name, "lines").open("w") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        self._wait_for_more_than(0)
        self._before = len(self._lines)
        return self

    @property
    def _lines(self) -> list[str]:
        """Those that are whole."""
        return Path(self._folder.name, "lines").read_text(errors="replace").split("\n")[:-1]

    def _wait_for_more_than(self, count: int) -> None:
        late = perf_counter() + FIRST_SECONDS
        assert self._process is not None
        while len(self._lines) <= count and self._process.poll() is None and perf_counter() < late:
            sleep(EVERY_MS / 1e4)

    def __exit__(self, *error: object) -> None:
        if self._process is None:
            return
        self._wait_for_more_than(self._before)
        self._process.terminate()
        self._process.wait()
        lines = [line for line in self._lines[self._before :] if "," in line]
        self._folder.cleanup()
        self.summary = summarise_readings([parse_line(line) for line in lines])


def summarise_readings(readings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Least, middle and greatest of every number over the readings; all reasons that were given."""
    if not readings:
        return {"absent": "the watch was too short for a reading"}
    summary: dict[str, Any] = {"readings": len(readings)}
    for name in _NUMBERS:
        values = sorted(r[name] for r in readings if r.get(name) is not None)
        if values:
            middle = values[len(values) // 2]
            summary[name] = {"min": values[0], "median": middle, "max": values[-1]}
    slowed = {reason for reading in readings for reason in reading.get("slowed_by") or ()}
    summary["slowed_by"] = sorted(slowed)
    summary["throttled"] = bool(slowed - _HARMLESS)
    return summary


def state_line(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    if "absent" in summary:
        return f"clocks and power: {summary['absent']}"
    parts = [
        f"{word} {span['min']:.0f} to {span['max']:.0f} {unit}"
        for word, name, unit in (("clock", "clocks.sm", "MHz"), ("power", "power.draw", "W"))
        if (span := summary.get(name))
    ]
    return ", ".join([*parts, f"slowed by: {', '.join(summary['slowed_by']) or 'nothing'}"])


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return None  # [N/A], [Not Supported]


def _slowed_by(text: str) -> list[str] | None:
    with suppress(ValueError):
        bits = int(text, 16)
        return [name for bit, name in _BITS.items() if bits & bit]
    return None
