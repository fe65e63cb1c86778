"""A terminal shows a bar; a log gets a line now and then, and none for short work."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from sonomime.runtime.support import progress as module
from sonomime.runtime.support.progress import progress


def test_a_terminal_shows_a_bar_and_standard_output_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(5), label="frames")) == [0, 1, 2, 3, 4]
    output, errors = capsys.readouterr()
    last = errors.split("\r")[-1]
    assert last.startswith("frames: 100%") and "5/5" in last and last.endswith("\n")
    assert output == ""


def test_an_error_ends_the_line_and_passes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        list(progress(broken(), total=3))
    assert capsys.readouterr().err.endswith("\n")


@pytest.mark.parametrize(
    ("seconds", "lines"), [(0.05, []), (0.1, ["30/30"]), (1, ["10/30", "20/30", "30/30", "30/30"])]
)
def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    lines: list[str],
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in progress(range(30), label="frames"):
        now[0] += seconds
    written = capsys.readouterr().err
    assert [line.split("|")[2].split()[0] for line in written.splitlines()] == lines
    assert "\r" not in written and written.isascii()


def test_the_total_may_be_unknown_or_too_small(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert sum(progress(iter(range(10)))) == sum(progress(range(10), total=3)) == 45
    assert capsys.readouterr().err.count("10it") >= 2
