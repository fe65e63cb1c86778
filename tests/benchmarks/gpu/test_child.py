"""Processes that report JSON lines: how long they may take, and what is left of them."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from sonomime.benchmarks.gpu.child import listen

LONG = 300.0


def command(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", "import os, signal, subprocess, sys, time\n" + code]


def listen_to(code: str, seconds: float = LONG) -> tuple[list[dict[str, Any]], dict[str, str]]:
    heard: list[dict[str, Any]] = []
    return heard, listen(command(code), lambda: seconds, heard.append)


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
