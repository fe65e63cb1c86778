"""The parts of `gpu_check`, each for a process of its own: a CUDA error spoils its process.

A part is given what it is asked for, with the names of the rows that are `done`, and reports the
others by `say` (see child.py). It returns whether all rows are done.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from time import perf_counter
from typing import Any

from ...runtime.backends.base import default_threads
from ...runtime.bundle.bundle import Bundle
from ...runtime.fastest import installed
from ...runtime.golden import agreement, golden_frame
from ...runtime.support.errors import BackendError
from ..measure import agrees
from .child import Row, Say, Spec, each, said, speaker

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {
    "ort-cpu": ("onnxruntime",),
    "ort-cuda": ("onnxruntime", "cuda.bindings"),
    "tensorrt": ("tensorrt", "cuda.bindings"),
    "rtx": ("tensorrt_rtx_bindings", "cuda.bindings"),
}
"""By backend, the modules without which it is absent."""


def run_part(spec: Spec, say: Say) -> bool:
    """Run the part that `spec` names; what it raises is said."""
    part, here = spec["part"], {"machine": machine, "tests": run_tests, "backends": backends}
    try:
        if part in here:
            return here[part](spec, say)
        from . import torch_parts

        return bool(getattr(torch_parts, part)(spec, say))
    except Exception as error:  # the other parts are worth running
        say({"failed": said(error)})
        return False


def machine(spec: Spec, say: Say) -> bool:
    """The GPU, as torch sees it, or else as the runtime does."""
    if installed("torch"):
        import torch

        cudnn = torch.backends.cudnn.version()
        say({"torch": {"version": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn}})
        if torch.cuda.is_available():
            facts = torch.cuda.get_device_properties(0)
            gpu: Row = {
                "name": facts.name,
                "compute_capability": f"{facts.major}.{facts.minor}",
                "memory_mb": facts.total_memory / 1e6,
                "multiprocessors": facts.multi_processor_count,
                "cache_mb": facts.L2_cache_size / 1e6,
            }
            say({"gpu": gpu | {"in_torch": True}})
            return True
    from ...runtime.backends.cuda import open_device

    try:
        device = open_device()
        capability = "{}.{}".format(*device.capability)
        gpu = {"name": device.name, "compute_capability": capability, "in_torch": False}
    except BackendError as error:
        gpu = {"absent": error.message}
    say({"gpu": gpu})
    return True


def backends(spec: Spec, say: Say) -> bool:
    """Every backend of the runtime on one bundle, each in a process of its own."""
    bundle = Bundle.open(Path(spec["bundle"]) if spec["bundle"] else None)
    say({"bundle": bundle.manifest.name, "digest": bundle.digest})

    def check(name: str) -> Row:
        why = absent(name, spec["gpu"])
        return {"absent": why} if why else check_backend(bundle, name, spec["frames"])

    return each(say, spec["names"], spec["done"], check, alone=True)


def absent(name: str, gpu: bool) -> str:
    """Why a backend is unavailable; not a failure. Empty if it should work.

    Raises:
        BackendError: a GPU or a package that is there cannot be used.
    """
    if missing := [module for module in (*NEEDED[name], "cv2") if not installed(module)]:
        return f"{missing[0]} is not installed"
    if name != "ort-cpu" and not gpu:
        return "there is no GPU"
    if name == "rtx":
        from ...runtime.backends.cuda import open_device
        from ...runtime.engines.tensorrt_packages import load_flavour, rtx_target, rtx_targets

        target, trt = rtx_target(*open_device().capability), load_flavour(name)[1]
        if target not in rtx_targets(trt):
            return f"TensorRT-RTX {trt.__version__} builds no engines for {target}"
    if name == "ort-cuda":
        from ...runtime.backends.ort_cuda import require_provider

        try:
            require_provider()
        except BackendError as error:
            return error.message
    return ""


def check_backend(bundle: Bundle, name: str, count: int) -> Row:
    """A backend's row over `count` frames, after building its engines, if it has engines.

    Raises:
        SonomimeError: the backend cannot serve, or a golden picture cannot be read.
    """
    from ...export.engine import build_engines
    from ...runtime.animator import Animator
    from ...runtime.engines.tensorrt_packages import FLAVOURS
    from ..cold_start import time_cold_start
    from ..latency import measure_warm

    row: Row = {}
    if name in FLAVOURS:
        began = perf_counter()
        built = build_engines(bundle, name)  # from this user's cache, or now
        row["engines"] = built.plain() | {"seconds": perf_counter() - began}
    steps = time_cold_start(bundle, name, default_threads())
    row |= {"cold_ms": steps["total"], "cold_start_ms": steps}
    with Animator.open(bundle, name) as animator:
        apart = agreement(golden_frame(animator.session, bundle), bundle)
        # A GPU's float32 differs from the CPU's in the last bits, and so may a rounding.
        row |= agrees(*apart, 45.0)
        return row | measure_warm(animator, count, max(2, count // 10)).report


def run_tests(spec: Spec, say: Say) -> bool:
    """Run the tests marked gpu of the checkout whose root is `root`, by default this one."""
    root = Path(spec.get("root", ROOT))
    missing = [name for name in ("pytest", "hypothesis") if not installed(name)]
    if missing or not (root / "tests").is_dir():
        why = f"they need {' and '.join(missing)}" if missing else "they need a checkout"
        say({"absent": why})
        return True
    import pytest

    files = sorted((root / "tests").rglob("test_*.py"))
    marked = [str(file) for file in files if "mark.gpu" in file.read_text(encoding="utf-8")]
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    os.chdir(root)
    ended = pytest.main([*options, *marked], [Reporter(say, spec["done"])])
    # 1: a file cannot be imported. Otherwise the reporter, or a fault of pytest's, has ended it.
    return ended in (0, 1, pytest.ExitCode.NO_TESTS_COLLECTED)


class Reporter:
    """A pytest plugin: reports each test, and ends the run after one that failed, since a CUDA
    error would fail all others."""

    def __init__(self, say: Say, done: Collection[str]) -> None:
        self._say, self._done = say, done
        self._row: Row = {}
        self._session: Any = None

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and report.nodeid not in self._done:
            self._say({"name": report.nodeid, "failed": _cause(report)})

    def pytest_collection_modifyitems(self, session: Any, items: list[Any]) -> None:
        self._session = session
        items[:] = [item for item in items if item.nodeid not in self._done]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._row = {"name": nodeid, "seconds": 0.0}
        self._say({"name": nodeid, "begun": True})

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test has one for its set-up, one for its call, one for its teardown."""
        self._row["seconds"] += report.duration
        if report.failed:
            self._row["failed"] = _cause(report)
        elif report.skipped:
            self._row["skipped"] = str(report.longrepr[-1]).removeprefix("Skipped: ")

    def pytest_runtest_logfinish(self) -> None:
        self._say(self._row)
        if "failed" in self._row:
            self._session.shouldstop = "another process runs the rest"


def _cause(report: Any) -> str:
    """The error of a report, in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else str(report.longrepr)).strip().splitlines()
    return (lines or ["it does not say why"])[0 if crash else -1][:300]


if __name__ == "__main__":
    done = run_part(json.loads(sys.argv[1]), speaker())
    os._exit(0 if done else 1)  # everything is reported; CUDA's shutdown may hang
