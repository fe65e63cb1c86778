"""Numbers out of samples, and the record of the machine that they were taken on."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..runtime.backends.base import default_threads

_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "torch")
LEAST_FOR_P99 = 100
"""With fewer samples the 99th percentile is one frame's luck."""


@dataclass(frozen=True)
class Summary:
    """Milliseconds over `count` samples; `p99` is None below LEAST_FOR_P99 of them."""

    count: int
    min: float
    mean: float
    p50: float
    p90: float
    p99: float | None
    max: float


def summarise(seconds: Sequence[float]) -> Summary:
    """Summary of durations in seconds, at least one."""
    ms = np.asarray(seconds, np.float64) * 1e3
    low, p50, p90, p99, high = np.percentile(ms, (0, 50, 90, 99, 100)).tolist()
    tail = p99 if len(ms) >= LEAST_FOR_P99 else None
    return Summary(len(ms), low, float(ms.mean()), p50, p90, tail, high)


def environment() -> dict[str, Any]:
    """What a latency depends on besides the model: CPU, load, versions, commit."""
    return {
        "cpu": cpu_name(),
        "cores_logical": os.cpu_count(),
        "cores_available": default_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {
            "sonomime": __version__,
            **{name: found for name in _PACKAGES if (found := version(name))},
        },
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


def version(*names: str) -> str | None:
    """The version of the first of these packages that is installed."""
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


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
