"""Several streams in one process, each with its own Animator, source and clip, in its own thread.

In a closed loop all begin together and end when the first of them has made its frames, so that all
are busy all the time. In an open loop their frames are due at the same moments, which is the
hardest case, and they take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import chain
from time import perf_counter
from typing import Any

from ..runtime.animator import Animator
from ..runtime.backends.base import default_threads
from ..runtime.bundle.bundle import Bundle
from ..runtime.live.turns import Turns
from ..runtime.media.frames import Image
from ..runtime.support.errors import ConfigError
from .inputs import inputs
from .loops import Loop, Step, closed_loop, loop_report, open_loop
from .measure import summarise
from .memory import memory
from .opening import open_animator

MOST_STREAMS = 64


def check_streams(count: int) -> None:
    """ConfigError if so many streams cannot be measured together."""
    if not 1 <= count <= MOST_STREAMS:
        raise ConfigError(
            f"there cannot be {count} streams", f"give --streams a number from 1 to {MOST_STREAMS}"
        )


def threads_each(count: int, threads: int | None) -> int:
    """CPU threads of each of `count` streams: as given, or the physical cores shared out."""
    return max(1, default_threads() // count) if threads is None else threads


@contextmanager
def open_streams(
    count: int,
    bundle: Bundle,
    backend: str,
    precision: str | None,
    threads: int,
    device: int | None,
) -> Iterator[list[Animator]]:
    """Animators that run at the same time, `threads` for each; raises as `open_animator`."""
    with ExitStack() as opened:
        first = opened.enter_context(open_animator(bundle, backend, precision, threads, device))
        yield [first, *(opened.enter_context(first.another()) for _ in range(count - 1))]


def measure_streams(
    count: int, bundle: Bundle, backend: str, precision: str | None, threads: int,
    device: int | None, frames: int, warmup: int, rates: Sequence[float],
) -> dict[str, Any]:  # fmt: skip
    """Time `count` streams together: a closed loop, then an open loop at each rate.

    Args:
        threads: CPU threads of each stream.
        frames: of each stream; warmup: before these.
        rates: Hz, of each stream.

    Returns:
        Plain data: `streams`, `threads_each`, `memory_mb_each` that opening them added, and
        `scenarios`, each with `streams`, a `loop_report` for each.

    Raises:
        ConfigError: too many streams, a rate out of its range, or as `open_animator`.
        BackendError: as `open_animator`, or a stage failed.
    """
    check_streams(count)
    before = memory().get("now")
    with open_streams(count, bundle, backend, precision, threads, device) as animators:
        after = memory().get("now")
        steps = [stream_step(animator, number) for number, animator in enumerate(animators)]
        drive(steps, max(1, warmup), None)
        turns = Turns(default_threads() // threads)
        scenarios = [
            streams_report(*drive(steps, frames, rate, turns), rate) for rate in (None, *rates)
        ]
    return {
        "streams": count, "threads_each": threads, "scenarios": scenarios,
        "memory_mb_each": None if before is None or after is None else (after - before) / count,
    }  # fmt: skip


def stream_step(animator: Animator, number: int) -> Step:
    """A stream with a source and a clip of its own: the samples in turn, each begun elsewhere."""
    source, driving = inputs(animator.session.chain.image.channels, number)
    animator.set_source(source)

    def step(frame: int) -> Image:
        return animator.animate(driving[(frame + 7 * number) % len(driving)])

    return step


def drive(
    steps: Sequence[Step], count: int, rate: float | None, turns: Turns | None = None,
    clock: Callable[[], float] = perf_counter,
) -> tuple[list[Loop], float]:  # fmt: skip
    """Drive all streams, each in a thread.

    Args:
        steps: what makes a frame of each stream.
        count: frames of each stream, in a closed loop of the first that is done.
        rate: Hz; None is a closed loop.
        turns: taken in an open loop; None: frames of all streams are made at once.

    Returns:
        What each loop measured, and seconds until all were done.

    Raises:
        Whatever a step raises; then the others end after their present frame.
    """
    ended, begin = threading.Event(), threading.Barrier(len(steps))

    def run(step: Step) -> Loop:
        begin.wait()
        try:
            if rate is None:
                loop = closed_loop(step, count, stop=ended.is_set)
                ended.set()
                return loop
            turn = turns.take if turns is not None else lambda due: nullcontext()
            return open_loop(step, rate, count, stop=ended.is_set, turn=turn)
        except BaseException:
            ended.set()
            raise

    start = clock()
    with ThreadPoolExecutor(len(steps)) as pool:
        running = [pool.submit(run, step) for step in steps]
        try:
            loops = [each.result() for each in running]
        finally:
            ended.set()  # Ctrl-C comes to this thread
    return loops, clock() - start


def streams_report(loops: list[Loop], seconds: float, rate: float | None) -> dict[str, Any]:
    """Streams that ran together, as plain data: all together and each."""
    each = [loop_report(loop) for loop in loops]

    def total(name: str) -> int | None:
        values = [report[name] for report in each]
        return None if None in values else sum(values)

    return {
        "scenario": "closed loop" if rate is None else "open loop", "rate_hz": rate,
        "frames_per_second": sum(len(loop.latency) for loop in loops) / seconds,
        "due": total("due"), "finished": total("finished"), "dropped": total("dropped"),
        "missed": total("missed"),
        "milliseconds": summarise(list(chain.from_iterable(loop.latency for loop in loops))),
        "streams": each,
    }  # fmt: skip
