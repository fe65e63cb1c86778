"""Every backend of the runtime that this machine has, on one bundle: golden frame, times.

The stages are driven through the backends' own contract, without the Animator and its letterbox, so
that OpenCV need not be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter

from ...export.engine import build_engines
from ...runtime.backends import open_backend
from ...runtime.backends.cuda import open_device
from ...runtime.bundle.bundle import Bundle
from ...runtime.engines.tensorrt_packages import FLAVOURS, check_served, load_flavour, rtx_target
from ...runtime.golden import agreement, begin_golden
from ...runtime.media.pixels import to_image, to_planes
from ...runtime.session import Session
from ...runtime.support.errors import BackendError, SonomimeError
from ..measure import installed
from .png_reader import read_png
from .rows import Row, said, table, timed


def check_backend(bundle: Bundle, name: str, count: int, gpu: bool) -> Row:
    """A backend's row of plain data, over `count` frames; one that is absent says why. `gpu`: there
    is one that others can use, so that not to find it is a failure."""
    row: Row = {"backend": name}
    try:
        if absent := _absent(name, gpu):
            return row | absent
        if name in FLAVOURS:
            began = perf_counter()
            done = build_engines(bundle, name)  # from this user's cache, or now
            row["engines"] = done.plain() | {"seconds": perf_counter() - began}
        return row | _checked(bundle, name, count)
    except SonomimeError as error:
        return row | _told("failed", error)
    except Exception as error:  # a broken installation raises anything
        return row | {"failed": said(error)}


def _absent(name: str, gpu: bool) -> dict[str, str]:
    """Why a backend is unavailable here, which is not a failure; empty when it is there. What goes
    wrong beside that is a failure."""
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


def _checked(bundle: Bundle, name: str, count: int) -> Row:
    clock = [perf_counter()]
    backend = open_backend(name, bundle)
    clock.append(perf_counter())
    try:
        session = Session(bundle.manifest, backend)
        driving = begin_golden(session, bundle, read_png)
        clock.append(perf_counter())
        made = session.animate(to_planes(driving))
        clock.append(perf_counter())
        golden = agreement(to_image(made), bundle, read_png)
        stages: list[dict[str, float]] = []

        def loop(frames: int) -> list[float]:
            stages.clear()
            seconds = []
            for _ in range(frames):
                began = perf_counter()
                session.animate()
                seconds.append(perf_counter() - began)
                stages.append(dict(backend.seconds))
            return seconds

        steps = zip(("open", "source", "first_frame"), pairwise(clock), strict=True)
        return {
            "device": backend.device,
            "cold_ms": {step: 1e3 * (done - began) for step, (began, done) in steps},
            "golden": {"levels_apart": golden.levels, "psnr_db": min(golden.psnr_db, 120.0)},
            # A GPU's float32 differs from the CPU's in the last bits, and so may a rounding.
            "agrees": golden.psnr_db >= 45.0,
            **timed(loop, count, name != "ort-cpu"),
            "stages_ms": {
                stage: 1e3 * median(frame[stage] for frame in stages) for stage in backend.seconds
            },
        }
    finally:
        backend.close()


def backend_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The rows for a person."""
    columns = {
        "p50 ms": ("8.2f", "frame_ms.p50"),
        "p99": ("8.2f", "frame_ms.p99"),
        "open": ("9.0f", "cold_ms.open"),
        "first": ("8.1f", "cold_ms.first_frame"),
        "levels": ("8.0f", "golden.levels_apart"),
        "dB": ("7.1f", "golden.psnr_db"),
        "device": ("8", "device"),
    }
    return table(rows, "backend", "backend", 10, columns)
