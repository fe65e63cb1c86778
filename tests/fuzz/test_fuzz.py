"""Whatever a file holds, it is read or refused in words: no crash, no hang, no trace.

Some hundred damaged files of each kind; ``make fuzz`` tries ten thousand.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from fuzz.targets import TARGETS
from fuzz.worker import run

COUNT = int(os.environ.get("SONOMIME_FUZZ", "200"))


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Forked from one that has imported what takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["cv2", "av", "sonomime.export.fomm", "sonomime.training.data.dataset"]
    )
    return context


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_are_read_or_refused(
    processes: ForkServerContext, kind: str, tmp_path: Path
) -> None:
    worker = processes.Process(target=run, args=(kind, COUNT, tmp_path))
    worker.start()
    worker.join()
    case, said = (tmp_path / name for name in ("case.txt", "errors.txt"))
    where = case.read_text() if case.is_file() else "before the first case"
    assert worker.exitcode == 0, f"{where}: {said.read_text(errors='replace')[-2000:]}"
    assert (tmp_path / "failures.txt").read_text() == "done"
