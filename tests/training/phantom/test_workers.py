"""Processes that render: what they inherit, and how they end."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

import pytest

from sonomime.runtime.support.atomic_files import atomic_write_text
from sonomime.runtime.support.errors import OutputError, SonomimeError
from sonomime.training.phantom.workers import _for_workers, run, tick


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """This process is afterwards as it was."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    yield
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_tasks_are_run_in_processes_of_one_thread(tmp_path: Path) -> None:
    environment, threads = tmp_path / "environment", tmp_path / "threads"
    command = f"echo $OMP_NUM_THREADS $MKL_NUM_THREADS > {environment}"
    code = f"import cv2; open({str(threads)!r}, 'w').write(str(cv2.getNumThreads()))"
    run([(tick, ()), (os.system, (command,)), (exec, (code,)), (tick, ())], 2, 2, "working")
    assert environment.read_text() == "1 1\n"
    assert threads.read_text() == "1"


def test_the_first_error_passes_and_ends_the_others(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    wrong = (atomic_write_text, (tmp_path / "file" / "below", "text"))
    start = time.monotonic()
    with pytest.raises(OutputError, match="cannot write"):
        run([wrong, (time.sleep, (300,)), (time.sleep, (300,))], 2, 1, "working")
    assert time.monotonic() - start < 150, "the sleepers were not waited for"
    with pytest.raises(ValueError, match="math domain"):
        run([(math.sqrt, (-1,))], 4, 1, "working")


def test_a_process_that_is_killed_is_told_with_the_cure() -> None:
    with pytest.raises(SonomimeError, match="a worker process died") as caught:
        run([(os._exit, (9,)), (time.sleep, (300,))], 2, 1, "working")
    assert "--workers" in caught.value.hint


def test_a_signal_waits_until_the_processes_are_started() -> None:
    started = False
    with pytest.raises(KeyboardInterrupt), _for_workers():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        started = True
    assert started
