"""Every backend of the runtime that this machine has, on one bundle: golden frame, times.

The stages are driven through the backends' own contract, without the Animator and its letterbox, so
that OpenCV need not be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median
from time import perf_counter
from typing import Any

from ...export.engine import build_engines
from ...runtime.backends import open_backend
from ...runtime.backends.cuda import open_device
from ...runtime.bundle.bundle import Bundle
from ...runtime.engines.tensorrt_packages import FLAVOURS, check_served, load_flavour, rtx_target
from ...runtime.golden import agreement, begin_golden
from ...runtime.media.pixels import to_image, to_planes
from ...runtime.session import Session
from ...runtime.support.errors import BackendError, SonomimeError
from ..measure import installed, summarise
from .png_reader import read_png
from .rows import remarks, said, trouble
from .state import Watch


def check_backend(bundle: Bundle, name: str, count: int, gpu: bool) -> dict[str, Any]:
    """A backend's row of plain data, over `count` frames; one that is absent says why. `gpu`: there
    is one that others can use, so that not to find it is a failure."""
    row: dict[str, Any] = {"backend": name}
    try:
        if absent := _absent(name, gpu):
            return row | absent
        if name in FLAVOURS:
            row |= _built(bundle, name)
        return row | _checked(bundle, name, count)
    except SonomimeError as error:
        return row | _told("failed", error)
    except Exception as error:  # a broken installation raises anything
        return row | {"failed": said(error)}


def _absent(name: str, gpu: bool) -> dict[str, str]:
    """Why a backend is not installed or serves no GPU that there is, which is nothing to hold
    against the machine; empty when it is there. What goes wrong beside that is a failure."""
    module = FLAVOURS[name].module if name in FLAVOURS else "onnxruntime"
    if not installed(module):
        return {"absent": f"{module} is not installed"}
    if name == "ort-cpu":
        return {}
    try:
        device = open_device()
    except BackendError as error:
        if gpu and installed("cuda.bindings"):
            raise
        return _told("absent", error)
    trt = load_flavour(name)[1] if name in FLAVOURS else None
    try:
        if name == "ort-cuda":
            from ...runtime.backends.ort_cuda import require_provider

            require_provider()
        elif name == "rtx":
            check_served(name, trt, [rtx_target(*device.capability)])
    except BackendError as error:
        return _told("absent", error)
    return {}


def _told(word: str, error: SonomimeError) -> dict[str, str]:
    return {word: error.message[:300], "cure": error.hint[:300]}


def _built(bundle: Bundle, flavour: str) -> dict[str, Any]:
    """The engines, from this user's cache or built now."""
    began = perf_counter()
    done = build_engines(bundle, flavour)
    return {
        "engines": {"cached": done.cached, "seconds": perf_counter() - began} | done.plain(),
    }


def _checked(bundle: Bundle, name: str, count: int) -> dict[str, Any]:
    began = perf_counter()
    backend = open_backend(name, bundle)
    opened = perf_counter()
    try:
        session = Session(bundle.manifest, backend)
        driving = begin_golden(session, bundle, read_png)
        prepared = perf_counter()
        made = session.animate(to_planes(driving))
        first = perf_counter()
        golden = agreement(to_image(made), bundle, read_png)
        frames: list[float] = []
        stages: dict[str, list[float]] = {stage: [] for stage in backend.seconds}
        with Watch() as watch:
            for _ in range(max(1, count // 10)):
                session.animate()
            for _ in range(count):
                began_frame = perf_counter()
                session.animate()
                frames.append(perf_counter() - began_frame)
                for stage, seconds in backend.seconds.items():
                    stages[stage].append(seconds)
        row = {
            "device": backend.device,
            "cold_ms": {
                "open": 1e3 * (opened - began),
                "source": 1e3 * (prepared - opened),
                "first_frame": 1e3 * (first - prepared),
            },
            "golden": {"levels_apart": golden.levels, "psnr_db": min(golden.psnr_db, 120.0)},
            # A GPU's float32 differs from the CPU's in the last bits, and so may a rounding.
            "agrees": golden.psnr_db >= 45.0,
            "frame_ms": asdict(summarise(frames)),
            "frames_per_second": 1 / median(frames),
            "stages_ms": {stage: 1e3 * median(values) for stage, values in stages.items()},
        }
        return row if name == "ort-cpu" else row | {"gpu": watch.summary}
    finally:
        backend.close()


def backend_lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows for a person."""
    columns = (("p50 ms", 8), ("p99", 8), ("open", 9), ("first", 8), ("levels", 8), ("dB", 7))
    yield f"{'backend':<10}" + "".join(f"{name:>{width}}" for name, width in columns) + "  device"
    for row in rows:
        if why := f"absent: {row['absent']}" if "absent" in row else trouble(row):
            yield f"{row['backend']:<10}  {why}"
            continue
        ms, cold, golden = row["frame_ms"], row["cold_ms"], row["golden"]
        p99 = f"{ms['p99']:8.2f}" if ms["p99"] is not None else f"{'-':>8}"
        yield (
            f"{row['backend']:<10}{ms['p50']:8.2f}{p99}{cold['open']:9.0f}"
            f"{cold['first_frame']:8.1f}{golden['levels_apart']:8d}{golden['psnr_db']:7.1f}  "
            + row["device"]
            + remarks(row)
        )
