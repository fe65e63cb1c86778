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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import perf_counter, sleep
from typing import IO, Any

TOOL = "nvidia-smi"
EVERY_MS = 100
START_SECONDS = 20.0  # at most, until a reading

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


@contextmanager
def watch(device: int = 0) -> Iterator[dict[str, Any]]:
    """Read the state throughout a block, of the GPU that CUDA calls by that number. When the block
    ends, the yielded dict has the summary, or `absent`: why there is none.

    The block begins after the first reading, which is left out: the tool takes as long to start as
    hundreds of frames. A short block gets the reading that comes right after it.
    """
    summary: dict[str, Any] = {}
    with tempfile.TemporaryFile() as file:
        process, absent = _start(device, file)
        if process is None:
            yield summary | {"absent": absent}
            return
        try:
            before = len(_lines(process, file, 0))
            yield summary
            lines = _lines(process, file, before)[before:]
            summary |= summarise_readings([parse_line(line) for line in lines if "," in line])
        finally:
            process.kill()
            process.wait()


def _start(device: int, file: IO[bytes]) -> tuple[subprocess.Popen[bytes] | None, str]:
    """nvidia-smi, which has written its first reading; or nothing, and why."""
    tool, absent = shutil.which(TOOL), f"there is no {TOOL}"
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    number = (visible[device] if device < len(visible) else "") or str(device)
    for reasons in _REASONS if tool else ():
        query = f"--query-gpu={','.join((*_WORDS, *_NUMBERS, reasons))}"
        command = [str(tool), f"--id={number}", "--format=csv,noheader,nounits", query]
        file.seek(0)
        file.truncate()
        try:
            process = subprocess.Popen(
                [*command, f"--loop-ms={EVERY_MS}"], stdout=file, stderr=subprocess.STDOUT
            )
        except OSError as error:
            return None, f"{TOOL}: {error}"
        first = (_lines(process, file, 0) or [f"{TOOL} gives no reading"])[0]
        if first.count(",") == query.count(","):
            return process, ""
        process.kill()
        process.wait()
        absent = first
    return None, absent


def _lines(process: subprocess.Popen[bytes], file: IO[bytes], count: int) -> list[str]:
    """All whole lines, as soon as there are more than that, or will be none for long."""
    late = perf_counter() + START_SECONDS
    while True:
        ended = process.poll() is not None or perf_counter() > late
        text = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
        lines = text.decode(errors="replace").split("\n")[:-1]
        if len(lines) > count or ended:
            return lines
        sleep(EVERY_MS / 1e4)


def summarise_readings(readings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Least, middle and greatest of every number; all reasons for slowing down; the last words."""
    if not readings:
        return {"absent": "there was no time for a reading"}
    summary: dict[str, Any] = {"readings": len(readings)}
    summary |= {name: readings[-1].get(name) for name in _WORDS}
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
