"""Two ways to give frames to whatever makes pictures of them, and what they measure.

Closed loop: the next frame is given when the last one is done. This shows what the machine can do,
not how long a viewer waits.

Open loop: frames are due at a fixed rate, whether the last one is done or not, and a latency counts
from when its frame was due. A slow frame therefore also makes those late that wait behind it, as it
would for a viewer; a loop that waits for each frame never sees that (coordinated omission). The
newest frame that is due is taken; those that it overtakes are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from ..runtime.support.errors import ConfigError
from ..runtime.support.progress import progress
from .measure import summarise

Step = Callable[[int], object]
"""Makes the picture of the frame of that number, from 0."""
MOST_HZ = 1000.0


def _nothing() -> None:
    pass


def _never() -> bool:
    return False


class Loop(NamedTuple):
    """What a loop measured; seconds."""

    latency: list[float]
    """Of each frame that was finished: from when it was given, or due, until it was done."""
    finished: list[float]
    """When it was done, since the loop began."""
    due: int
    """Frames that were given or due; those that are not finished were dropped."""
    period: float | None = None
    """Between two due frames; None in a closed loop."""

    @property
    def dropped(self) -> int:
        """Frames that a newer one overtook."""
        return self.due - len(self.latency)

    @property
    def missed(self) -> int | None:
        """Frames that were done later than a period after they were due; None in a closed loop."""
        if self.period is None:
            return None
        return sum(latency > self.period for latency in self.latency)


def closed_loop(
    step: Step,
    count: int,
    after: Callable[[], object] = _nothing,
    stop: Callable[[], bool] = _never,
    clock: Callable[[], float] = time.perf_counter,
) -> Loop:
    """Make `count` frames, one after the other.

    Args:
        after: called after each frame, not timed.
        stop: asked before each frame whether to end now.
        clock: seconds.
    """
    latency, finished, start = [], [], clock()
    for number in range(count):
        if stop():
            break
        begin = clock()
        step(number)
        end = clock()
        latency.append(end - begin)
        finished.append(end - start)
        after()
    return Loop(latency, finished, len(latency))


def open_loop(
    step: Step,
    rate: float,
    count: int,
    after: Callable[[], object] = _nothing,
    stop: Callable[[], bool] = _never,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    turn: Callable[[float], AbstractContextManager[object]] = lambda due: nullcontext(),
) -> Loop:
    """Make the newest frame that is due, until `count` frames were due; the last one is made.

    Args:
        rate: frames that are due in a second, above 0 and at most MOST_HZ.
        after, stop, clock: as for `closed_loop`; but what `after` takes makes a next frame late.
        sleep: waits for so many seconds.
        turn: waits for a frame's turn, which has been due since then.

    Raises:
        ConfigError: a rate out of its range.
    """
    check_rate(rate)
    latency, finished, number, given, start = [], [], -1, -1, clock()
    while given < count - 1 and not stop():
        # Multiplied and not added up, so that late frames do not move those after them.
        wait = start + (given + 1) / rate - clock()
        if wait > 0:
            sleep(wait)
            continue
        with turn(start + (given + 1) / rate):
            number, now = given + 1, clock()
            while number < count - 1 and start + (number + 1) / rate <= now:
                number += 1
            given = number
            step(number)
            end = clock()
        latency.append(end - (start + number / rate))
        finished.append(end - start)
        after()
    return Loop(latency, finished, given + 1, 1 / rate)


def check_rate(rate: float) -> None:
    """ConfigError if frames cannot be due at that rate, in Hz."""
    if not 0 < rate <= MOST_HZ:
        raise ConfigError(
            f"frames cannot be due {rate:g} times a second",
            f"give --rate a number above 0 and at most {MOST_HZ:g}, for example --rate 30",
        )


def loop_report(loop: Loop) -> dict[str, Any]:
    """A loop as plain data, its samples included.

    `jitter_ms` is the standard deviation of the gaps between finished frames, `longest_gap_ms` the
    longest of them: None with fewer than two gaps, or none. `rate_hz` and `missed` are None in a
    closed loop.
    """
    gaps = 1e3 * np.diff(loop.finished)
    return {
        "scenario": "closed loop" if loop.period is None else "open loop",
        "rate_hz": None if loop.period is None else round(1 / loop.period, 6),
        "frames_per_second": len(loop.finished) / loop.finished[-1] if loop.finished else None,
        "due": loop.due, "finished": len(loop.latency), "dropped": loop.dropped,
        "missed": loop.missed,
        "milliseconds": summarise(loop.latency),
        "jitter_ms": float(gaps.std()) if len(gaps) > 1 else None,
        "longest_gap_ms": float(gaps.max()) if len(gaps) else None,
        "samples_ms": in_ms(loop.latency), "finished_ms": in_ms(loop.finished),
    }  # fmt: skip


def in_ms(seconds: list[float]) -> list[float]:
    """Seconds as milliseconds, to a ten-thousandth."""
    return np.round(1e3 * np.asarray(seconds), 4).tolist()


@contextmanager
def ticking(count: int, label: str) -> Iterator[Callable[[], object]]:
    """Show progress; what is yielded counts one more frame of `count`."""
    bar = progress(range(count), count, label)
    next(bar, None)
    try:
        yield lambda: next(bar, None)
    finally:
        bar.close()  # type: ignore[attr-defined]
