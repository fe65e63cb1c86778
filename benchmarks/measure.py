"""Numbers out of samples, and the record of the machine that they were taken on."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
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

    def said(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10)

    with suppress(OSError, subprocess.SubprocessError):
        changed = said("status", "--porcelain", "-uno").strip()
        return said("rev-parse", "HEAD").strip() + ("+" if changed else "")
    return None
