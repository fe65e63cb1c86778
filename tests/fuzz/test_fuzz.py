"""Whatever a file holds, it is read or refused in words: no crash, no hang, no trace.

Some hundred damaged files of each kind; ``make fuzz`` tries ten thousand.
"""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from fuzz.targets import TARGETS
from fuzz.worker import run

COUNT = int(os.environ.get("SONOMIME_FUZZ", "200"))
# Workers are forked from a process that has imported what takes seconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["cv2", "av", "sonomime.export.fomm", "sonomime.training.loop"])


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    if kind.startswith("dicom"):
        pytest.importorskip("pydicom")
    worker = PROCESSES.Process(target=run, args=(kind, COUNT, tmp_path), daemon=True)
    worker.start()
    worker.join()
    case = tmp_path / "case.txt"
    assert worker.exitcode == 0, case.read_text() if case.is_file() else "before the first case"
    assert (tmp_path / "failures.txt").read_text() == "done"
