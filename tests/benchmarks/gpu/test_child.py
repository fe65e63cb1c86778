"""Processes that report JSON lines: what arrives, how they end, what is left when stopped."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import pytest

from sonomime.benchmarks.gpu.child import each, listen, said, speaker

LONG = 300.0


def command(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", "import os, signal, subprocess, sys, time\n" + code]


def listen_to(code: str, seconds: float = LONG) -> tuple[list[dict[str, Any]], dict[str, str]]:
    heard: list[dict[str, Any]] = []
    return heard, listen(command(code), lambda: seconds, heard.append)


def test_lines_arrive_that_are_whole_and_json() -> None:
    lines = """print('no JSON\\n[1]\\n{"name": "a"}\\n{"na', flush=True)\n"""
    assert listen_to(lines) == ([{"name": "a"}], {})


def test_a_limit_is_of_every_line_and_stops_everything_that_was_started() -> None:
    code = """
for i in range(4):
    print('{"name": 1}', flush=True); time.sleep(0.5)
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)"])
print('{"pid": %d}' % child.pid, flush=True)
time.sleep(300)
"""
    heard, ended = listen_to(code, seconds=1.5)
    assert len(heard) == 5 and ended == {"stopped": "after 2 s: out of time"}
    for _ in range(200):  # until the process that adopts it has noticed
        if not runs(heard[-1]["pid"]):
            return
        sleep(0.05)
    raise AssertionError("what it started still runs")


def runs(pid: int) -> bool:
    """On Linux; a zombie does not run."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_process_that_outlives_it_is_not_waited_for() -> None:
    leave = "if os.fork() == 0: os.setsid(); time.sleep(20); os._exit(0)\n"
    began = perf_counter()
    assert listen_to(leave + """print('{"name": 1}')""") == ([{"name": 1}], {})
    assert "stopped" in listen_to(leave + "os.close(1); time.sleep(300)", seconds=1.0)[1]
    assert perf_counter() - began < 15


def test_what_libraries_print_is_no_line(run_python: Any, capfd: Any) -> None:
    code = """
import os
from sonomime.benchmarks.gpu.child import speaker
say = speaker()
print('{"row": 1}')
os.write(1, b'{"row": 2}')
say({"row": 3})
"""
    status, out, errors = run_python(code)
    assert (status, out) == (0, '{"row": 3}\n')
    assert '{"row": 1}' in errors and '{"row": 2}' in errors
    with pytest.raises(ValueError):  # JSON has no such number
        speaker()({"row": float("nan")})


def test_a_process_ends_after_a_row_that_failed() -> None:
    def work(name: str) -> dict[str, Any]:
        if name == "b":
            raise OSError("illegal\naddress")
        return {"agrees": True}

    lines: list[dict[str, Any]] = []
    assert not each(lines.append, "abc", [], work)
    assert lines[2:] == [
        {"name": "b", "begun": True},
        {"name": "b", "failed": "OSError: illegal"},
    ]
    assert each(lines.append, "abc", ["a", "b"], work)
    assert lines[4:] == [{"name": "c", "begun": True}, {"name": "c", "agrees": True}]
    assert not each(lines.append, "acb", ["a"], work, alone=True)


def test_an_error_is_reported_with_its_cause() -> None:
    try:
        try:
            raise ValueError("CUDA error 900\nand more")
        except ValueError as error:
            raise RuntimeError("the capture failed") from error
    except RuntimeError as error:
        found = said(error)
    assert found == "RuntimeError: the capture failed; caused by ValueError: CUDA error 900"
    assert said(KeyError()) == "KeyError:"
