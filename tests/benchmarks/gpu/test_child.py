"""A process that is listened to: what it says, how it ends, what is left of it when stopped."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import pytest

from sonomime.benchmarks.gpu.child import listen, speak

LONG = 300.0


def told(
    code: str, *words: str, seconds: float = LONG
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    heard: list[dict[str, Any]] = []
    command = [sys.executable, "-I", "-S", "-c", "import os, signal, sys\n" + code, *words]
    return heard, listen(command, lambda: seconds, heard.append)


def test_what_it_says_is_handed_on() -> None:
    heard, ended = told("""print('{"begin": "a"}'); print('{"row": {"case": "a"}}')""")
    assert heard == [{"begin": "a"}, {"row": {"case": "a"}}] and ended == {}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("sys.exit(3)", "ended with exit code 3"),
    ],
)
def test_how_it_ended(code: str, reason: str) -> None:
    heard, ended = told("""print('{"begin": "a"}'); print('{"ro', flush=True)\n""" + code)
    assert heard == [{"begin": "a"}] and ended == {"failed": reason}


def test_when_time_is_over_it_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = """
import subprocess, time
print('{"begin": "a"}', flush=True)
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)"])
with open(sys.argv[1] + "~", "w") as file:
    file.write(str(child.pid))
os.replace(sys.argv[1] + "~", sys.argv[1])
time.sleep(300)
"""
    heard, ended = told(code, str(note), seconds=3.0)
    assert heard == [{"begin": "a"}] and ended == {"stopped": "after 3 s: out of time"}
    grandchild = int(note.read_text())
    for _ in range(200):  # whoever adopts it has to take notice of its end
        if not running(grandchild):
            return
        sleep(0.05)
    raise AssertionError("what it started still runs")


def running(pid: int) -> bool:
    """On Linux; a zombie that nobody has collected does not run."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_every_message_has_a_limit_of_its_own() -> None:
    code = """import time\nfor i in range(4): print('{"row": 1}', flush=True); time.sleep(0.5)"""
    heard, ended = told(code, seconds=1.5)  # two seconds in all
    assert len(heard) == 4 and ended == {}


def test_a_limit_holds_whoever_has_the_pipe() -> None:
    """One that has left the group outlives it, and is not waited for either."""
    leave = "if os.fork() == 0: os.setsid(); time.sleep(20); os._exit(0)\n"
    began = perf_counter()
    heard, ended = told("import time\n" + leave + "time.sleep(300)", seconds=2.0)
    assert ended == {"stopped": "after 2 s: out of time"}
    heard, ended = told("import time\n" + leave + """print('{"row": 1}')""")
    assert heard == [{"row": 1}] and ended == {}
    heard, ended = told("import time\nos.close(1); time.sleep(300)", seconds=2.0)
    assert "stopped" in ended and perf_counter() - began < 15


def test_an_error_of_who_listens_is_not_swallowed() -> None:
    def refuse(message: dict[str, Any]) -> None:
        raise ValueError("Out of range float values are not JSON compliant")

    command = [sys.executable, "-I", "-S", "-c", """print('no JSON'); print('{"row": 1}')"""]
    with pytest.raises(ValueError, match="not JSON compliant"):
        listen(command, lambda: LONG, refuse)


def test_it_is_stopped_when_the_listener_is_interrupted() -> None:
    seen: list[int] = []

    def interrupt(message: dict[str, Any]) -> None:
        seen.append(message["pid"])
        raise KeyboardInterrupt

    code = """import os, time; print('{"pid": %d}' % os.getpid(), flush=True); time.sleep(300)"""
    with pytest.raises(KeyboardInterrupt):
        listen([sys.executable, "-I", "-S", "-c", code], lambda: LONG, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_what_libraries_print_is_no_message(run_python: Any) -> None:
    code = """
import os
from sonomime.benchmarks.gpu.child import speak
def messages():
    print('{"row": 1}')
    os.write(1, b'{"row": 2}')
    yield {"row": 3}
speak(messages())
"""
    status, said, errors = run_python(code)
    assert status == 0 and said.strip() == '{"row": 3}'
    assert '{"row": 1}' in errors and '{"row": 2}' in errors


def test_what_is_no_json_is_an_error_of_who_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        speak([{"row": float("nan")}])
