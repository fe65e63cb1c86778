"""The bar says how far it is, and stays silent in a log about what is quick."""

from __future__ import annotations

import io

import pytest

from sonomime.runtime.support import progress as module
from sonomime.runtime.support.progress import progress, progress_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the bar sees; tests set it."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_items_pass_in_order_and_a_terminal_ends_on_a_full_bar() -> None:
    terminal = Terminal()
    assert list(progress(range(5), label="frames", stream=terminal)) == [0, 1, 2, 3, 4]
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("frames: [########################] 5/5")
    assert last.endswith("\n")


def test_a_log_hears_nothing_of_what_is_quick() -> None:
    log = io.StringIO()
    assert sum(progress(iter(range(1000)), total=1000, stream=log)) == 499500
    assert log.getvalue() == ""


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(clock: list[float]) -> None:
    log = io.StringIO()
    for _ in progress(range(30), stream=log):
        clock[0] += 1
    lines = log.getvalue().splitlines()
    assert [line.split("]")[1].split()[0] for line in lines] == ["10/30", "20/30", "30/30", "30/30"]
    assert "\r" not in log.getvalue()


def test_a_line_that_got_shorter_covers_the_longer_one(clock: list[float]) -> None:
    terminal = Terminal()
    for item in progress(range(2), stream=terminal):
        clock[0] += 4000 if item == 0 else 1
    written = terminal.getvalue().rstrip("\n").split("\r")[1:]
    assert len(written[1]) >= len(written[0].rstrip())


def test_an_error_ends_the_line_and_passes() -> None:
    terminal = Terminal()

    def broken() -> object:
        yield 1
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        list(progress(broken(), total=3, stream=terminal))  # type: ignore[call-overload]
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("count", "total", "seconds", "text"),
    [
        (5, 10, 2.0, "[############............] 5/10  2.5/s  0:02 left"),
        (10, 10, 4.0, "[########################] 10/10  2.5/s  0:04"),
        (0, 10, 1.0, "[........................] 0/10  0.0/s  0:00 left"),
        (1, 3, 10.0, "[########................] 1/3  10.0 s each  0:20 left"),
        (7, None, 3700.0, "7  528.6 s each  1:01:40"),
        (7, 3, 1.0, "7  7.0/s  0:01"),
        (0, 0, 0.0, "0  0.0/s  0:00"),
    ],
)
def test_the_line(count: int, total: int | None, seconds: float, text: str) -> None:
    assert progress_text("", count, total, seconds) == text
