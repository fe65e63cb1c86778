"""The latency of one frame in a closed loop: cold start, warm frames, stages, the runtime's share.

Closed loop: the next frame is given when the last one is done. This shows what the machine can
do, not how long a viewer waits when frames are due at a fixed rate. Stages are timed by the host's
clock on a CPU and by events on a GPU, where the rest of a frame is the host's work and the copies.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ..runtime.animator import Animator
from ..runtime.backends import resolve_backend, resolve_threads
from ..runtime.bundle.bundle import Bundle
from ..runtime.media.frames import Image, resize
from ..runtime.readers.open_source import open_source
from ..runtime.readers.stills import read_image
from ..runtime.still import SAMPLES
from ..runtime.support.errors import BackendError, ConfigError
from ..runtime.support.progress import progress
from .measure import environment, seconds_of, summarise, table
from .nvidia_smi import state_line, watch

MOST_INPUTS = 60  # frames kept in memory and repeated
COMPOSED = 800, 600  # the size at which frames are composed
TORCH = "torch"  # not a backend of the runtime: the same stages in torch


def measure_latency(
    bundle: Path | None = None,
    backend: str = "auto",
    threads: int | None = None,
    frames: int = 200,
    warmup: int = 20,
    cold: int = 3,
    torch: Path | None = None,
    device: int | None = None,
) -> dict[str, Any]:
    """Time a bundle's frames; the report is plain data, raw samples included.

    Args:
        bundle: None is the default one.
        backend: one of the runtime's, or `torch`.
        threads: None is the physical cores.
        cold: number of new processes timed to their first frame.
        torch: a checkpoint to compare with, or the one to run with backend `torch`.
        device: number of the GPU; None is the first.

    Raises:
        ConfigError: fewer than one frame, a negative number, threads out of range, an unknown
            backend, or one that takes no GPU's number.
        SonomimeError: the bundle or the checkpoint cannot be used.
    """
    if frames < 1 or warmup < 0 or cold < 0:
        raise ConfigError("bench needs at least 1 frame, and no negative numbers")
    threads = resolve_threads(threads)
    opened = Bundle.open(bundle)
    in_torch = backend == TORCH
    if in_torch and device is not None:
        raise ConfigError(
            "backend 'torch' takes the first GPU that it sees, none by its number",
            "set CUDA_VISIBLE_DEVICES to that number instead",
        )
    backend = backend if in_torch else resolve_backend(backend, device)
    manifest = opened.manifest
    report: dict[str, Any] = {
        "scenario": "closed loop",
        "bundle": {
            "name": manifest.name,
            "preset": manifest.preset,
            "precision": manifest.precision,
            "size": manifest.image.size,
            "channels": manifest.image.channels,
            "digest": opened.digest,
        },
        "threads": threads,
        "environment": environment(),
    }
    if cold and not in_torch:
        runs = [time_cold_start(opened, backend, threads, device) for _ in range(cold)]
        report["cold_start_ms"] = runs
    if in_torch:
        from .torch_bench import open_torch

        animator = open_torch(opened, torch, threads)
    else:
        animator = Animator.open(opened, backend, threads=threads, device=device)
    with animator:
        warm, samples = measure_warm(animator, frames, warmup, device or 0)
    report |= warm
    report["samples_ms"] = {
        name: np.round(1e3 * np.asarray(s), 4).tolist() for name, s in samples.items()
    }
    if torch is not None and not in_torch:
        from .torch_bench import compare_with_torch

        pictures = inputs(manifest.image.channels)
        report["torch"] = compare_with_torch(opened, torch, threads, *pictures, frames)
    return report


def measure_warm(
    animator: Animator, count: int, warmup: int, device: int = 0
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Warm frames of the package's samples, their stages, and composing where there are layers.

    Args:
        device: number of the GPU to watch, if the animator is on one.

    Returns:
        The report, and the seconds of every frame by what was timed.
    """
    source, driving = inputs(animator.session.chain.image.channels)
    animator.reset()
    animator.set_source(source)
    frames = itertools.cycle(driving)
    backend: Any = animator.session.backend
    gpu = hasattr(backend, "captured")
    with watch(device) if gpu else nullcontext({}) as state:
        for frame in itertools.islice(frames, warmup):
            animator.animate(frame)
        # The whole call, each stage, and the rest, the runtime's own.
        samples: dict[str, list[float]] = {n: [] for n in ("frame", *animator.timings, "own")}
        for frame in progress(itertools.islice(frames, count), count, "bench"):
            (whole,) = seconds_of(lambda frame=frame: animator.animate(frame), 1)
            own = whole - sum(animator.timings.values())
            for name, seconds in {"frame": whole, **animator.timings, "own": own}.items():
                samples[name].append(seconds)
        if animator.session.chain.layers is not None:
            animator.set_source(resize(source, *COMPOSED))
            composed = samples["compose {}x{}".format(*COMPOSED)] = []
            for frame in progress(itertools.islice(frames, count), count, "compose"):
                animator.animate(frame)
                composed += seconds_of(animator.compose, 1)
    report = {
        "backend": backend.name,
        "device": backend.device,
        "spans": "CUDA events" if gpu else "host clock",
        "frame_shape": list(driving[0].shape),
        "warmup": warmup,
        "milliseconds": {name: summarise(values) for name, values in samples.items()},
        "own_share": median(np.asarray(samples["own"]) / np.asarray(samples["frame"])),
    }
    if gpu:
        report |= {"cuda_graph": backend.captured, "gpu": state}
    return report, samples


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for a person."""
    bundle, machine = report["bundle"], report["environment"]
    yield (
        f"{bundle['name']} {bundle['precision']} {bundle['size']}x{bundle['size']}x"
        f"{bundle['channels']}, digest {bundle['digest'][:12]}"
    )
    yield f"{report['device']}, {report['threads']} threads, {machine['cpu']}"
    yield f"load average before: {machine['load_average'][0]}"
    for run in report.get("cold_start_ms", ()):
        steps = ", ".join(f"{k} {v:.0f}" for k, v in run.items() if k != "total")
        yield f"cold start {run['total']:.0f} ms: {steps}"
    columns = {name: name for name in ("min", "mean", "p50", "p90", "p99", "max")}
    lines = table("ms", list(report["milliseconds"].items()), columns)
    yield f"{next(lines)}   {report['milliseconds']['frame']['count']} warm frames"
    yield from lines
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


def inputs(channels: int) -> tuple[Image, list[Image]]:
    """Source and driving frames: the samples that come with the package."""
    source = open_source(SAMPLES / "driving.mp4", channels=channels)
    frames = [frame.image for frame in itertools.islice(source, MOST_INPUTS)]
    return read_image(SAMPLES / "still.png"), frames


# The steps begin and end at these times, of a clock that all processes share.
_SCRIPT = """
from time import perf_counter
marks = [perf_counter()]
import json, sys
from sonomime.runtime import Animator, SonomimeError
from sonomime.runtime.readers.stills import read_image
bundle, backend, threads, source, driving, device = json.loads(sys.argv[1])
marks.append(perf_counter())
try:
    animator = Animator.open(bundle, backend, threads=threads, device=device)
    marks.append(perf_counter())
    animator.set_source(read_image(source))
    marks.append(perf_counter())
    animator.animate(read_image(driving))
    marks.append(perf_counter())
except SonomimeError as error:
    sys.exit(print(json.dumps({"message": error.message, "hint": error.hint})))
print(json.dumps(marks), flush=True)
"""
_STEPS = ("interpreter", "imports", "open", "set_source", "first_frame")


def time_cold_start(
    bundle: Bundle, backend: str, threads: int, device: int | None = None
) -> dict[str, float]:
    """Start an interpreter, open a bundle and make a frame of its golden pictures.

    Args:
        backend, threads, device: as for Animator.open.

    Returns:
        Milliseconds by step: interpreter, imports, open, set_source, first_frame; and `total`.

    Raises:
        BackendError: the process failed.
    """
    golden = bundle.manifest.golden
    source, driving = (str(bundle.folder / each.file) for each in (golden.source, golden.driving))
    argument = json.dumps([str(bundle.folder), backend, threads, source, driving, device])
    begin = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, argument], capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    said = json.loads(done.stdout.partition("\n")[0] or "{}")
    if isinstance(said, dict):
        why = said.get("message") or (done.stderr.strip() or "no reason").splitlines()[-1]
        raise BackendError(
            f"a new process did not reach its first frame: {why}", said.get("hint", "")
        )
    spans = [*np.diff([begin, *said]).tolist(), said[-1] - begin]
    steps = zip((*_STEPS, "total"), spans, strict=True)
    return {step: round(1e3 * seconds, 2) for step, seconds in steps}
