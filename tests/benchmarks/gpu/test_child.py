"""Subprocesses that report JSON lines: their messages, how they end, what is left when stopped."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import pytest

from sonomime.benchmarks.gpu.child import listen, speaker

LONG = 300.0


def listen_to(
    code: str, *words: str, seconds: float = LONG
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    heard: list[dict[str, Any]] = []
    code = "import os, signal, subprocess, sys, time\n" + code
    command = [sys.executable, "-I", "-S", "-c", code, *words]
    return heard, listen(command, lambda: seconds, heard.append)


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("", {}),
        ("os.kill(os.getpid(), signal.SIGSEGV)", {"failed": "ended by SIGSEGV"}),
        ("sys.exit(3)", {"failed": "ended with exit code 3"}),
    ],
)
def test_messages_arrive_however_the_process_ends(code: str, end: dict[str, str]) -> None:
    said = """print('no JSON\\n[1]\\n{"begin": "a"}\\n{"ro', flush=True)\n"""
    assert listen_to(said + code) == ([{"begin": "a"}], end)


def test_at_the_limit_it_is_stopped_with_everything_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = """
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)"])
print('{"pid": %d}' % child.pid, flush=True)
time.sleep(300)
"""
    heard, ended = listen_to(code, str(note), seconds=2.0)
    assert ended == {"stopped": "after 2 s: out of time"}
    for _ in range(200):  # until the process that adopts it has noticed
        if not runs(heard[0]["pid"]):
            return
        sleep(0.05)
    raise AssertionError("what it started still runs")


def runs(pid: int) -> bool:
    """On Linux; a zombie does not run."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_every_message_has_a_limit_of_its_own() -> None:
    code = """for i in range(4): print('{"row": 1}', flush=True); time.sleep(0.5)"""
    heard, ended = listen_to(code, seconds=1.5)  # two seconds in all
    assert len(heard) == 4 and ended == {}


def test_a_process_that_outlives_it_is_not_waited_for() -> None:
    leave = "if os.fork() == 0: os.setsid(); time.sleep(20); os._exit(0)\n"
    began = perf_counter()
    assert listen_to(leave + """print('{"row": 1}')""") == ([{"row": 1}], {})
    assert "stopped" in listen_to(leave + "os.close(1); time.sleep(300)", seconds=1.0)[1]
    assert perf_counter() - began < 15


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_it_is_stopped_when_the_listener_fails(error: type[BaseException]) -> None:
    seen: list[int] = []

    def fail(message: dict[str, Any]) -> None:
        seen.append(message["pid"])
        raise error

    code = """import os, time; print('{"pid": %d}' % os.getpid(), flush=True); time.sleep(300)"""
    with pytest.raises(error):
        listen([sys.executable, "-I", "-S", "-c", code], lambda: LONG, fail)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_what_libraries_print_is_no_message(run_python: Any) -> None:
    code = """
import os
from sonomime.benchmarks.gpu.child import speaker
say = speaker()
print('{"row": 1}')
os.write(1, b'{"row": 2}')
say({"row": 3})
"""
    status, said, errors = run_python(code)
    assert status == 0 and json.loads(said) == {"row": 3}
    assert '{"row": 1}' in errors and '{"row": 2}' in errors


def test_a_number_that_json_lacks_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError):
        speaker()({"row": float("nan")})
