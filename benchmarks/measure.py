"""Numbers out of samples, tables of them, and the record of the machine that they come from."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .. import __version__
from ..runtime.backends.base import default_threads

_PACKAGES = (
    "numpy", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "pillow", "torch",
    "tensorrt", "tensorrt-rtx-cu13-bindings", "cuda-bindings",
)  # fmt: skip
LEAST_FOR_P99 = 100
"""With fewer samples the 99th percentile is one frame's luck."""


def summarise(seconds: Sequence[float]) -> dict[str, float | None]:
    """Milliseconds over durations in seconds, at least one: count, min, mean, p50, p90, p99, max.
    p99 is None below LEAST_FOR_P99 samples."""
    ms = np.asarray(seconds, np.float64) * 1e3
    low, p50, p90, p99, high = np.percentile(ms, (0, 50, 90, 99, 100)).tolist()
    tail = p99 if len(ms) >= LEAST_FOR_P99 else None
    return {
        "count": len(ms), "min": low, "mean": float(ms.mean()), "p50": p50, "p90": p90,
        "p99": tail, "max": high,
    }  # fmt: skip


def seconds_of(work: Callable[[], object], count: int) -> list[float]:
    """How long each of `count` calls takes, in seconds."""
    marks = [perf_counter()]
    for _ in range(count):
        work()
        marks.append(perf_counter())
    return np.diff(marks).tolist()


def agrees(levels: int, decibels: float, least: float) -> dict[str, Any]:
    """How far a frame is from what it should be, and whether its PSNR is at least `least` dB."""
    return {
        "levels_apart": levels,
        "psnr_db": min(decibels, 120.0),  # JSON has no infinity
        "agrees": decibels >= least,
    }


def table(
    title: str, rows: Sequence[tuple[str, Mapping[str, Any] | str]], columns: Mapping[str, str]
) -> Iterator[str]:
    """Rows as text, one line each, below a heading; nothing without rows.

    Args:
        title: the heading of the rows' names.
        rows: name and values, or a text in their place.
        columns: by heading, the keys of the value in a row, with dots between them. A column
            that no row has is left out.
    """
    cells = {name: [_value(row, path) for path in columns.values()] for name, row in rows}
    used = [i for i in range(len(columns)) if any(each[i] != "" for each in cells.values())]
    width = 2 + max((len(name) for name in (title, *cells)), default=0)
    if rows:
        yield f"{title:<{width}}" + "".join(f"{list(columns)[i]:>10}" for i in used)
    for name, row in rows:
        text = row if isinstance(row, str) else "".join(_cell(cells[name][i]) for i in used)
        yield f"{name:<{width}}{text}"


def _value(row: Any, path: str) -> Any:
    for name in path.split("."):
        row = row.get(name, "") if isinstance(row, Mapping) else ""
    return row


def _cell(value: Any) -> str:
    if isinstance(value, str) and value:
        return f"  {value}"
    if isinstance(value, float):
        value = f"{value:.3f}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{'-' if value in (None, '') else value:>10}"


def environment() -> dict[str, Any]:
    """What a latency depends on besides the model: CPU, load, versions, commit."""
    versions = {"sonomime": __version__}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "cpu": cpu_name(),
        "cores_logical": os.cpu_count(),
        "cores_available": default_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
    }


def installed(module: str) -> bool:
    """Whether there is such a module; importing it may still fail."""
    with suppress(ImportError, ValueError):  # from a package above it
        return importlib.util.find_spec(module) is not None
    return False


def cpu_name() -> str:
    """The processor's name, as Linux reports it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checkout's commit, with a + when files differ from it; None when installed otherwise."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    words = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(
            ["git", "-C", str(root), *words], stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()
    return None
