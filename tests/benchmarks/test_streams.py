"""Streams side by side: that they run together, and that one that fails ends all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sonomime.benchmarks.loops import Loop
from sonomime.benchmarks.streams import (
    drive,
    measure_streams,
    stream_step,
    streams_report,
    threads_each,
)
from sonomime.runtime.animator import Animator
from sonomime.runtime.backends.base import default_threads
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import BackendError, ConfigError


def test_all_end_when_the_first_has_made_its_frames() -> None:
    """The slow one waits for the quick one to be done, within its second frame."""
    done, seen = threading.Event(), set[int]()

    def quick(number: int) -> None:
        seen.add(threading.get_ident())
        if number == 4:
            done.set()

    def slow(number: int) -> None:
        seen.add(threading.get_ident())
        if number == 1:
            done.wait(60)

    (first, second), seconds = drive([quick, slow], 5, None)
    assert len(first.latency) == 5 and 1 <= len(second.latency) <= 5 and len(seen) == 2
    assert seconds >= first.finished[-1]


def test_in_an_open_loop_all_frames_are_due() -> None:
    loops, _ = drive([lambda number: None] * 3, 4, 500.0)
    assert [loop.due for loop in loops] == [4, 4, 4]
    assert all(loop.period == 1 / 500 for loop in loops)


@pytest.mark.parametrize("rate", [None, 500.0])
def test_a_stream_that_fails_ends_the_others(rate: float | None) -> None:
    made = []

    def broken(number: int) -> None:
        raise BackendError("out of order")

    with pytest.raises(BackendError):
        drive([made.append, broken], 10**9, rate)
    assert len(made) < 10**9


def test_streams_are_added_up() -> None:
    loops = [Loop([0.01, 0.03], [0.01, 0.05], 4, 0.02), Loop([0.02], [0.04], 4, 0.02)]
    report = streams_report(loops, 0.5, 50.0)
    assert (report["due"], report["finished"], report["dropped"], report["missed"]) == (8, 3, 5, 1)
    assert report["frames_per_second"] == 6 and report["milliseconds"]["p50"] == pytest.approx(20)
    assert [each["dropped"] for each in report["streams"]] == [2, 3]
    closed = streams_report([Loop([0.01], [0.01], 1)], 0.5, None)
    assert closed["missed"] is None and closed["rate_hz"] is None and closed["dropped"] == 0


def test_real_streams(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    found = measure_streams(3, bundle, "cpu", None, 1, None, 5, 0, [200.0])
    closed, due = found["scenarios"]
    assert found["streams"] == 3 == len(closed["streams"]) == len(due["streams"])
    assert max(each["finished"] for each in closed["streams"]) == 5
    assert due["due"] == 15 == due["finished"] + due["dropped"] and due["rate_hz"] == 200
    with pytest.raises(ConfigError):
        measure_streams(0, bundle, "cpu", None, 1, None, 5, 0, [])


def test_every_stream_has_its_own_pictures(toy_bundle: Path) -> None:
    frames = []
    for number in range(3):
        with Animator.open(toy_bundle, "cpu", threads=1) as animator:
            step = stream_step(animator, number)
            step(0)
            frames.append(step(1).tobytes())  # type: ignore[attr-defined]
    assert len(set(frames)) == 3


def test_the_cores_are_shared_out() -> None:
    assert threads_each(1, None) == default_threads() and threads_each(10**6, None) == 1
    assert threads_each(8, 3) == 3
