"""The latency of one frame in a closed loop: cold start, warm frames, stages, the runtime's share.

Closed loop means back to back: the next frame is handed over when the last one is done. It says
what the machine can do, not what a viewer waits for when frames fall due at a fixed rate. Stages
are timed by the host's clock on a CPU and by events on a GPU, where the rest of a frame is what the
host and the copies take.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ..runtime.animator import Animator
from ..runtime.backends import resolve_backend, resolve_threads
from ..runtime.bundle.bundle import Bundle
from ..runtime.media.frames import Image, read_image, resize
from ..runtime.media.video import open_source
from ..runtime.pipeline import SAMPLES
from ..runtime.support.atomic_files import atomic_write_text
from ..runtime.support.errors import ConfigError
from ..runtime.support.progress import progress
from .cold_start import time_cold_start
from .gpu.state import Watch, state_line
from .measure import Summary, environment, summarise

MOST_INPUTS = 60  # frames kept in memory and repeated
BLOCKS = 8  # of the comparison with torch
COMPOSED = 800, 600  # the size at which frames are composed
TORCH = "torch"  # no backend of the runtime: the same stages in torch


@dataclass(frozen=True)
class Plan:
    """What to time. `bundle` None is the default one; `backend` one of the runtime's, or
    `torch`; `threads` None the physical cores; `cold` the number of new processes; `torch` a
    checkpoint to compare with, or for backend `torch` the one to run; `device` the number of the
    GPU, None the first."""

    bundle: Path | None = None
    backend: str = "auto"
    threads: int | None = None
    frames: int = 200
    warmup: int = 20
    cold: int = 3
    torch: Path | None = None
    device: int | None = None


def measure_latency(plan: Plan) -> dict[str, Any]:
    """Run the plan and return the report as plain data, raw samples included.

    Raises:
        ConfigError: fewer than one frame, a negative number, threads out of range, an unknown
            backend, or one that takes no GPU's number.
        SonomimeError: the bundle or the checkpoint cannot be used.
    """
    if plan.frames < 1 or plan.warmup < 0 or plan.cold < 0:
        raise ConfigError("bench needs at least 1 frame, and no negative numbers")
    threads = resolve_threads(plan.threads)
    bundle = Bundle.open(plan.bundle)
    if plan.backend == TORCH:
        if plan.device is not None:
            raise ConfigError(
                "backend 'torch' takes the first GPU that it sees, none by its number",
                "set CUDA_VISIBLE_DEVICES to that number instead",
            )
        from .torch_bench import measure_torch

        return _about(bundle, threads) | measure_torch(bundle, plan.torch, plan.frames, threads)
    plan = replace(plan, backend=resolve_backend(plan.backend, plan.device))
    report = _about(bundle, threads)
    cold = [_cold(bundle, plan, threads) for _ in range(plan.cold)]
    source, driving = _inputs(bundle)
    with Animator.open(bundle, plan.backend, threads=threads, device=plan.device) as animator:
        animator.set_source(source)
        frames = itertools.cycle(driving)
        gpu = hasattr(animator.session.backend, "captured")
        with Watch(plan.device or 0) if gpu else nullcontext() as watch:
            for frame in itertools.islice(frames, plan.warmup):
                animator.animate(frame)
            samples = _time_frames(animator, itertools.islice(frames, plan.frames), plan.frames)
            if bundle.manifest.layers is not None:
                again = itertools.islice(frames, plan.frames)
                name = "compose {}x{}".format(*COMPOSED)
                samples[name] = _time_composing(animator, source, again, plan.frames)
        report |= {
            "backend": animator.session.backend.name,
            "device": animator.session.backend.device,
        }
        if watch is not None:
            graph = animator.session.backend.captured  # type: ignore[attr-defined]
            report |= {"spans": "CUDA events", "cuda_graph": graph, "gpu": watch.summary}
    report |= {
        "frame_shape": list(driving[0].shape),
        "warmup": plan.warmup,
        "milliseconds": {name: asdict(summarise(values)) for name, values in samples.items()},
        "own_share": _share(samples),
        "samples_ms": {
            name: [round(value * 1e3, 4) for value in values] for name, values in samples.items()
        },
    }
    if cold:
        report["cold_start_ms"] = [
            {step: round(seconds * 1e3, 2) for step, seconds in run.items()} for run in cold
        ]
    if plan.torch is not None:
        from .against_torch import compare_with_torch

        report["torch"] = compare_with_torch(
            bundle, plan.torch, threads, source, driving, plan.frames, BLOCKS
        )
    return report


def _about(bundle: Bundle, threads: int) -> dict[str, Any]:
    """What is timed and on what, before any of it runs."""
    manifest = bundle.manifest
    return {
        "scenario": "closed loop",
        "bundle": {
            "name": manifest.name,
            "preset": manifest.preset,
            "precision": manifest.precision,
            "size": manifest.image.size,
            "channels": manifest.image.channels,
            "digest": bundle.digest,
        },
        "threads": threads,
        "spans": "host clock",
        "environment": environment(),
    }


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for a person."""
    bundle, machine = report["bundle"], report["environment"]
    yield (
        f"{bundle['name']} {bundle['precision']} {bundle['size']}x{bundle['size']}x"
        f"{bundle['channels']}, digest {bundle['digest'][:12]}"
    )
    yield f"{report['device']}, {report['threads']} threads, {machine['cpu']}"
    yield f"load average before: {machine['load_average'][0]}"
    if "ways" in report:
        from .gpu.torch_check import torch_lines

        yield report["weights"]
        yield from torch_lines(report["ways"])
        return
    if "cold_start_ms" in report:
        for run in report["cold_start_ms"]:
            steps = ", ".join(f"{k} {v:.0f}" for k, v in run.items() if k != "total")
            yield f"cold start {run['total']:.0f} ms: {steps}"
    count = report["milliseconds"]["frame"]["count"]
    yield f"{'ms':<16}" + "".join(f"{k:>9}" for k in _COLUMNS) + f"   {count} warm frames"
    for name, row in report["milliseconds"].items():
        cells = (f"{row[k]:9.3f}" if row[k] is not None else f"{'-':>9}" for k in _COLUMNS)
        yield f"{name:<16}" + "".join(cells)
    yield f"runtime's own share of a frame: {report['own_share']:.2%}"
    if "gpu" in report:
        yield "stages by CUDA events, " + ("one CUDA graph" if report["cuda_graph"] else "no graph")
        yield state_line(report["gpu"])
    if "torch" in report:
        torch = report["torch"]
        ours, eager = torch["runtime"]["p50"], torch["torch"]["p50"]
        span = f"{torch['ratio_low']:.2f}-{torch['ratio_high']:.2f} over {torch['blocks']} blocks"
        yield f"eager torch {eager:.1f} ms, this runtime {ours:.1f} ms"
        yield f"{torch['ratio']:.2f} times as fast as torch ({span})"
        yield f"frames of both within {torch['levels_apart']} grey levels"


_COLUMNS = tuple(name for name in Summary.__annotations__ if name != "count")


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    atomic_write_text(path, json.dumps(report, indent=1) + "\n")


def _cold(bundle: Bundle, plan: Plan, threads: int) -> dict[str, float]:
    golden = bundle.manifest.golden
    source, driving = (str(bundle.folder / each.file) for each in (golden.source, golden.driving))
    return time_cold_start(str(bundle.folder), plan.backend, threads, source, driving, plan.device)


def _inputs(bundle: Bundle) -> tuple[Image, list[Image]]:
    """The samples that come with the package, else the bundle's golden images."""
    still, clip = SAMPLES / "still.png", SAMPLES / "driving.mp4"
    if still.is_file() and clip.is_file():
        with open_source(clip, channels=bundle.manifest.image.channels) as source:
            frames = [frame.image for frame in itertools.islice(source, MOST_INPUTS)]
        return read_image(still), frames
    golden = bundle.manifest.golden
    driving = read_image(bundle.folder / golden.driving.file)
    return read_image(bundle.folder / golden.source.file), [driving]


def _time_frames(animator: Animator, frames: Iterator[Image], count: int) -> dict[str, list[float]]:
    """Seconds of every frame: the whole call, each stage, and what is left, the runtime's own."""
    stages = list(animator.timings)
    samples: dict[str, list[float]] = {"frame": [], **{name: [] for name in stages}, "own": []}
    for frame in progress(frames, count, "bench"):
        begin = perf_counter()
        animator.animate(frame)
        whole = perf_counter() - begin
        samples["frame"].append(whole)
        for name, seconds in animator.timings.items():
            samples[name].append(seconds)
        samples["own"].append(whole - sum(animator.timings.values()))
    return samples


def _time_composing(
    animator: Animator, source: Image, frames: Iterator[Image], count: int
) -> list[float]:
    """Seconds that every frame costs more when it is composed, of a source that has that size."""
    animator.set_source(resize(source, *COMPOSED))
    seconds = []
    for frame in progress(frames, count, "compose"):
        animator.animate(frame)
        begin = perf_counter()
        animator.compose()
        seconds.append(perf_counter() - begin)
    return seconds


def _share(samples: dict[str, list[float]]) -> float:
    """The median over frames of own time / frame time."""
    return median(np.asarray(samples["own"]) / np.asarray(samples["frame"]))
