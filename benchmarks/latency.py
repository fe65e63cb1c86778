"""The latency report of one bundle on one backend: `sonomime bench`.

New processes to their first frame, warm frames one after the other with their stages, frames due
at fixed rates, streams side by side, a clip from file to file; and what is needed to trust these:
memory, agreement with ONNX Runtime on the CPU, and whether the machine was steady. Stages are timed
by the host's clock on a CPU and by events on a GPU, where the rest of a frame is the host's work
and the copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ..runtime.animator import Animator
from ..runtime.backends import resolve_backend, resolve_threads
from ..runtime.bundle.bundle import Bundle
from ..runtime.media.frames import resize
from ..runtime.support.errors import ConfigError
from .cold_start import time_cold_start
from .inputs import inputs
from .loops import Loop, check_rate, closed_loop, in_ms, loop_report, open_loop, ticking
from .measure import environment, summarise
from .memory import memory
from .nvidia_smi import watch
from .offline import measure_offline
from .opening import describe_bundle, open_animator
from .parity import parity
from .steadiness import in_blocks, steadiness
from .streams import check_streams, measure_streams, threads_each

COMPOSED = 800, 600  # the size at which frames are composed


def measure_latency(
    bundle: Path | None = None,
    backend: str = "auto",
    threads: int | None = None,
    frames: int = 200,
    warmup: int = 20,
    cold: int = 3,
    device: int | None = None,
    precision: str | None = None,
    rates: Sequence[float] = (),
    streams: int = 1,
    offline: bool = True,
) -> dict[str, Any]:
    """Time a bundle's frames; the report is plain data, raw samples included.

    Args:
        bundle: None is the default one.
        threads: None is the physical cores, shared out among several streams.
        frames: of each scenario.
        warmup: frames before these.
        cold: number of new processes timed to their first frame.
        device: number of the GPU; None is the first.
        precision: None leaves it to the backend.
        rates: Hz at which frames are due in open loops.
        streams: how many are also timed side by side, if there is more than one.
        offline: whether a clip is also animated from file to file.

    Raises:
        ConfigError: fewer than one frame, a negative number, threads, a rate or streams out of
            range, an unknown backend or precision, or one that takes no GPU's number.
        SonomimeError: the bundle cannot be used.
    """
    if frames < 1 or warmup < 0 or cold < 0:
        raise ConfigError(
            "there is nothing to measure",
            "give --frames 1 or more, and --warmup and --cold 0 or more",
        )
    for rate in rates:
        check_rate(rate)
    check_streams(streams)
    count, backend = resolve_threads(threads), resolve_backend(backend, device)
    opened = Bundle.open(bundle)
    machine = environment()
    report: dict[str, Any] = {
        "bundle": describe_bundle(opened),
        "threads": count,
        "environment": machine,
    }
    source, driving = inputs(opened.manifest.image.channels)
    if backend == "auto":  # it compares this machine's engines once: in a process of its own
        time_cold_start(opened, backend, count, device, precision)
    before = memory().get("now")
    with open_animator(opened, backend, precision, count, device) as animator:
        after = memory().get("now")
        report["precision"] = animator.session.backend.precision
        warm = measure_warm(animator, frames, warmup, device or 0)
        report |= warm.report
        report["samples_ms"] = {name: in_ms(s) for name, s in warm.samples.items()}
        report["scenarios"] = [
            loop_report(warm.loop),
            *(loop_report(measure_open(animator, rate, frames)) for rate in rates),
        ]
        report["memory_mb"] = {
            "peak": memory().get("peak"),
            "opening": None if before is None or after is None else after - before,
        }
        some = driving[: min(frames, len(driving))]
        report["parity"] = parity(animator, opened, count, source, some)
        if offline:
            report["scenarios"].append(measure_offline(animator))
    if cold:
        report["cold_start_ms"] = [
            time_cold_start(opened, backend, count, device, precision) for _ in range(cold)
        ]
    report["steadiness"] = steadiness(
        in_blocks(warm.loop.latency), machine["load_average"][0], machine["cores_logical"]
    )
    if streams > 1:
        each = threads_each(streams, threads)
        report["streams"] = measure_streams(
            streams, opened, backend, precision, each, device, frames, warmup, rates
        )
    return report


class Warm(NamedTuple):
    """Plain data about warm frames, the seconds of every frame by what was timed, and their
    loop."""

    report: dict[str, Any]
    samples: dict[str, list[float]]
    loop: Loop


def measure_warm(animator: Animator, count: int, warmup: int, device: int = 0) -> Warm:
    """Warm frames of the package's samples in a closed loop, their stages, and composing where
    there are layers.

    Args:
        device: number of the GPU to watch, if the animator is on one.
    """
    source, driving = inputs(animator.session.chain.image.channels)
    animator.reset()
    animator.set_source(source)
    backend: Any = animator.session.backend
    gpu = hasattr(backend, "captured")

    def step(number: int) -> None:
        animator.animate(driving[number % len(driving)])

    with watch(device) if gpu else nullcontext({}) as state:
        closed_loop(step, warmup)
        stages: dict[str, list[float]] = {name: [] for name in animator.timings}

        def note() -> None:
            for name, seconds in animator.timings.items():
                stages[name].append(seconds)
            tick()

        with ticking(count, "bench") as tick:
            loop = closed_loop(step, count, note)
        # The whole call, each stage, and the rest, the runtime's own.
        own = np.asarray(loop.latency) - np.sum(list(stages.values()), axis=0)
        samples = {"frame": loop.latency, **stages, "own": own.tolist()}
        if animator.session.chain.layers is not None:
            animator.set_source(resize(source, *COMPOSED))
            composed = samples["compose {}x{}".format(*COMPOSED)] = []
            with ticking(count, "compose") as tick:
                for number in range(count):
                    step(number)
                    composed += closed_loop(lambda _: animator.compose(), 1).latency
                    tick()
    report = {
        "backend": backend.name,
        "device": backend.device,
        "spans": "CUDA events" if gpu else "host clock",
        "frame_shape": list(driving[0].shape),
        "warmup": warmup,
        "milliseconds": {name: summarise(values) for name, values in samples.items()},
        "own_share": float(median(own / np.asarray(loop.latency))),
    }
    if gpu:
        report |= {"cuda_graph": backend.captured, "gpu": state}
    return Warm(report, samples, loop)


def measure_open(animator: Animator, rate: float, count: int) -> Loop:
    """An Animator that is warm, in an open loop of `count` frames of the samples at `rate` Hz;
    raises as `open_loop`, and BackendError if a stage fails."""
    source, driving = inputs(animator.session.chain.image.channels)
    animator.reset()
    animator.set_source(source)
    animator.animate(driving[0])  # the reference, which is seen twice
    with ticking(count, f"{rate:g} Hz") as tick:
        return open_loop(
            lambda number: animator.animate(driving[number % len(driving)]), rate, count, tick
        )
