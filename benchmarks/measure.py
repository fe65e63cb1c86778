"""Numbers out of samples, tables of them, and the record of the machine that they come from."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .. import __version__
from ..runtime.backends.base import cpu_name, default_threads

_PACKAGES = (
    "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python-headless", "pillow",
    "torch", "tensorrt", "tensorrt-rtx-cu13-bindings", "cuda-bindings",
)  # fmt: skip
LEAST = {"p50": 1, "p90": 10, "p95": 20, "p99": 100, "p99.9": 10_000}
"""How many samples a percentile needs. With fewer it would be one frame's luck; p99.9 wants ten
frames beyond it, since it is asked for to say how rare the worst is."""
MOST_DB = 120.0
"""The PSNR of equal pictures in reports, since JSON has no infinity."""
FIGURES = ("min", "mean", *LEAST, "max")
"""What `summarise` finds besides the count."""


def summarise(seconds: Sequence[float]) -> dict[str, float | None]:
    """Milliseconds over durations in seconds: count, and what FIGURES names.

    A percentile is None with fewer samples than LEAST says; all are None without samples.
    """
    ms = np.asarray(seconds, np.float64) * 1e3
    found: dict[str, float | None] = {"count": len(ms), **dict.fromkeys(FIGURES)}
    if len(ms):
        found |= {"min": float(ms.min()), "mean": float(ms.mean()), "max": float(ms.max())}
    for name, least in LEAST.items():
        if len(ms) >= least:
            found[name] = float(np.percentile(ms, float(name[1:])))
    return found


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
        "psnr_db": min(decibels, MOST_DB),
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
    used = columns_used(rows, columns)
    cells = {
        i: [cell_text(value_at(row, path)) for path in used.values()]
        for i, (_, row) in enumerate(rows)
        if not isinstance(row, str)
    }
    left = [
        any(isinstance(value_at(row, path), str) and value_at(row, path) for _, row in rows)
        for path in used.values()
    ]
    wide = [max(map(len, column)) for column in zip(used, *cells.values(), strict=True)]
    width = max((len(name) for name in (title, *(name for name, _ in rows))), default=0)

    def line(name: str, texts: Iterable[str]) -> str:
        aligned = (
            t.ljust(w) if is_left else t.rjust(w)
            for t, w, is_left in zip(texts, wide, left, strict=True)
        )
        return "  ".join((name.ljust(width), *aligned)).rstrip()

    if rows:
        yield line(title, used)
    for i, (name, row) in enumerate(rows):
        yield line(name, cells[i]) if i in cells else f"{name:<{width}}  {row}"


def columns_used(
    rows: Sequence[tuple[str, Mapping[str, Any] | str]], columns: Mapping[str, str]
) -> dict[str, str]:
    """The columns that some row has a value for, or says that it is not known (None)."""
    return {
        heading: path
        for heading, path in columns.items()
        if any(value_at(row, path) != "" for _, row in rows)
    }


def value_at(row: Any, path: str) -> Any:
    """The value at keys with dots between them, of which one may have a dot itself (p99.9); "" if
    there is none."""
    if isinstance(row, Mapping) and path in row:
        return row[path]
    name, _, rest = path.partition(".")
    return value_at(row.get(name, ""), rest) if rest and isinstance(row, Mapping) else ""


def cell_text(value: Any) -> str:
    """A value as a table shows it; - for one that is not known."""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:.0f}"
    return "-" if value in (None, "") else str(value)


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
