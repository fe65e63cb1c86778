"""The loops of `sonomime bench`, by a clock that only moves when it should."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from sonomime.benchmarks.loops import (
    MOST_HZ,
    Loop,
    check_rate,
    closed_loop,
    loop_report,
    open_loop,
    ticking,
)
from sonomime.benchmarks.measure import FIGURES, LEAST, summarise
from sonomime.runtime.support.errors import ConfigError


class Clock:
    """Seconds that pass in a step, in sleeping, and at no other time."""

    def __init__(self, *takes: float) -> None:
        self.now, self.takes, self.made = 100.0, list(takes), list[int]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def step(self, number: int) -> None:
        self.now += self.takes[len(self.made)]
        self.made.append(number)

    def open(self, rate: float, count: int, after: Callable[[], object] = lambda: None) -> Loop:
        return open_loop(self.step, rate, count, after, clock=self, sleep=self.sleep)


def test_a_closed_loop() -> None:
    clock, seen = Clock(1, 3, 2), list[int]()
    loop = closed_loop(clock.step, 3, lambda: seen.append(len(clock.made)), clock=clock)
    assert loop == Loop([1, 3, 2], [1, 4, 6], 3, None)
    assert clock.made == [0, 1, 2] and seen == [1, 2, 3]
    assert loop.dropped == 0 and loop.missed is None
    report = loop_report(loop)
    assert report["frames_per_second"] == pytest.approx(3 / 6)
    assert report["rate_hz"] is None and report["missed"] is None and report["dropped"] == 0
    assert report["longest_gap_ms"] == 3000 and report["jitter_ms"] == pytest.approx(500)
    assert json.dumps(report, allow_nan=False)


def test_an_open_loop_that_keeps_up() -> None:
    clock = Clock(0.125, 0.25, 0.125)
    loop = clock.open(4, 3)
    assert loop.latency == [0.125, 0.25, 0.125] and loop.finished == [0.125, 0.5, 0.625]
    assert (loop.due, loop.dropped, loop.missed, loop.period) == (3, 0, 0, 0.25)


def test_a_latency_counts_from_when_its_frame_was_due() -> None:
    """Frames are due at 0, 1, 2 ... A closed loop would say 1.5, 0.5, 0.5."""
    clock = Clock(1.5, 0.5, 0.5, 0.5)
    loop = clock.open(1, 4)
    assert clock.made == [0, 1, 2, 3]
    assert loop.latency == [1.5, 1.0, 0.5, 0.5] and loop.finished == [1.5, 2.0, 2.5, 3.5]
    assert loop.dropped == 0
    assert loop.missed == 1, "done exactly one period after it was due is in time"


def test_the_newest_frame_that_is_due_wins() -> None:
    """The first takes until 3.25: 1 and 2 are overtaken by 3, which is then 0.25 old."""
    clock = Clock(3.25, 0.5, 2.0, 0.25)
    loop = clock.open(1, 7)
    assert clock.made == [0, 3, 4, 6]
    assert loop.latency == [3.25, 0.75, 2.0, 0.25]
    assert (loop.due, loop.dropped, loop.missed) == (7, 3, 2)
    report = loop_report(loop)
    assert (report["rate_hz"], report["due"], report["finished"]) == (1, 7, 4)
    assert (report["dropped"], report["missed"]) == (3, 2)
    assert report["longest_gap_ms"] == 2250 and report["samples_ms"][0] == 3250


def test_a_frame_that_is_due_right_when_one_is_done_is_taken() -> None:
    clock = Clock(2.0, 1.0)
    assert clock.open(1, 3).latency == [2.0, 1.0] and clock.made == [0, 2]


def test_the_last_frame_is_made_and_none_after_it() -> None:
    clock = Clock(50.0, 1.0)
    loop = clock.open(10, 20)
    assert clock.made == [0, 19] and (loop.due, loop.dropped) == (20, 18)
    assert clock.open(10, 0) == Loop([], [], 0, 0.1)


def test_what_comes_after_a_frame_makes_the_next_one_late() -> None:
    clock = Clock(0.5, 0.5)
    loop = clock.open(1, 2, lambda: clock.sleep(0.75))
    assert loop.latency == [0.5, 0.75]


def test_late_frames_do_not_move_those_after_them() -> None:
    """A period that binary numbers do not have, a thousand times."""
    clock = Clock(*[0.01] * 1000)
    loop = clock.open(30, 1000)
    assert loop.latency == pytest.approx([0.01] * 1000) and loop.dropped == 0


def test_loops_that_are_stopped() -> None:
    clock = Clock(1, 1, 1, 1)
    loop = closed_loop(clock.step, 9, stop=lambda: len(clock.made) == 2, clock=clock)
    assert loop.due == len(loop.latency) == 2
    clock = Clock(0.5, 0.5)
    stop = lambda: len(clock.made) == 2  # noqa: E731
    stopped = open_loop(clock.step, 1, 9, stop=stop, clock=clock, sleep=clock.sleep)
    assert (stopped.due, stopped.dropped) == (2, 0)
    nothing = loop_report(closed_loop(clock.step, 9, stop=lambda: True))
    assert nothing["frames_per_second"] is nothing["longest_gap_ms"] is nothing["jitter_ms"] is None


@pytest.mark.parametrize("rate", [0.0, -25.0, float("nan"), float("inf"), 2 * MOST_HZ])
def test_rates_that_cannot_be(rate: float) -> None:
    for refuse in (check_rate, lambda rate: open_loop(print, rate, 1)):
        with pytest.raises(ConfigError) as caught:
            refuse(rate)
        assert caught.value.hint
    check_rate(MOST_HZ)


def test_a_summary_of_known_samples() -> None:
    known = {
        "count": 101, "min": 1, "mean": 51, "p50": 51, "p90": 91, "p95": 96, "p99": 100,
        "p99.9": None, "max": 101,
    }  # fmt: skip
    found = summarise([i / 1000 for i in range(1, 102)])
    assert found.pop("p99.9") is known.pop("p99.9") is None
    assert found == pytest.approx(known)


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_a_percentile_is_refused_from_too_few_samples(name: str, least: int) -> None:
    assert summarise([0.001] * least)[name] == pytest.approx(1)
    assert summarise([0.001] * (least - 1))[name] is None
    assert summarise([]) == {"count": 0, **dict.fromkeys(FIGURES)}


def test_progress_counts_every_frame(capsys: pytest.CaptureFixture[str]) -> None:
    with ticking(3, "bench") as tick:
        for _ in range(5):
            tick()
