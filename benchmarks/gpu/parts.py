"""The parts of `gpu_check`, each for a process of its own: a CUDA error spoils its process.

A part is given what it is asked for, with the names of the rows that are `done`, and reports the
others by `say` (see child.py). It returns whether all rows are done.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from ...runtime.backends.base import default_threads
from ...runtime.bundle.bundle import Bundle
from ...runtime.golden import agreement, golden_frame
from ...runtime.support.errors import BackendError
from ..measure import agrees, installed
from .child import Row, Say, Spec, each, said, speaker
from .marked_tests import run_tests

NEEDED = {
    "ort-cpu": ("onnxruntime",),
    "ort-cuda": ("onnxruntime", "cuda.bindings"),
    "tensorrt": ("tensorrt", "cuda.bindings"),
    "rtx": ("tensorrt_rtx_bindings", "cuda.bindings"),
}
"""By backend, the modules without which it is absent."""


def run_part(spec: Spec, say: Say) -> bool:
    """Run the part that `spec` names; what it raises is said."""
    part = spec["part"]
    try:
        if part == "machine":
            return machine(say)
        if part == "tests":
            return run_tests(say, spec["done"])
        if part == "backends":
            return backends(spec, say)
        from . import torch_parts

        run: Callable[[Spec, Say], bool] = getattr(torch_parts, part)
        return run(spec, say)
    except Exception as error:  # the other parts are worth running
        say({"failed": said(error)})
        return False


def machine(say: Say) -> bool:
    """The GPU, as torch sees it, or else as the runtime does."""
    if installed("torch"):
        import torch

        cudnn = torch.backends.cudnn.version()
        say({"torch": {"version": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn}})
        if torch.cuda.is_available():
            facts = torch.cuda.get_device_properties(0)
            gpu = {
                "name": facts.name,
                "compute_capability": f"{facts.major}.{facts.minor}",
                "memory_mb": facts.total_memory / 1e6,
                "multiprocessors": facts.multi_processor_count,
                "cache_mb": facts.L2_cache_size / 1e6,
                "in_torch": True,
            }
            say({"gpu": gpu})
            return True
    from ...runtime.backends.cuda import open_device

    try:
        device = open_device()
    except BackendError as error:
        say({"gpu": {"absent": error.message}})
        return True
    capability = "{}.{}".format(*device.capability)
    say({"gpu": {"name": device.name, "compute_capability": capability, "in_torch": False}})
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
        from ...runtime.engines.tensorrt_packages import check_served, load_flavour, rtx_target

        target, trt = rtx_target(*open_device().capability), load_flavour(name)[1]
    try:
        if name == "rtx":
            check_served(name, trt, [target])
        if name == "ort-cuda":
            from ...runtime.backends.ort_cuda import require_provider

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
        return row | measure_warm(animator, count, max(2, count // 10))[0]


if __name__ == "__main__":
    done = run_part(json.loads(sys.argv[1]), speaker())
    os._exit(0 if done else 1)  # everything is reported; CUDA's shutdown may hang
