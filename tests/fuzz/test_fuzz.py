"""Whatever a file holds, it is read or refused in words: no crash, no hang, no trace.

Some hundred damaged files of each kind; ``make fuzz`` tries ten thousand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COUNT = int(os.environ.get("SONOMIME_FUZZ", "200"))
KINDS = (
    "png", "jpeg", "tiff", "mp4", "mkv", "avi", "ts", "manifest", "stage", "landmarks", "engine",
    "checkpoint", "configuration", "clips", "keypoints", "displacement", "cache", "subject",
    "fomm", "fomm_yaml",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "worker.py"), kind, str(COUNT), str(tmp_path)]
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    environment = os.environ | {"PYTHONPATH": path, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "errors.txt", "w+") as errors:
        process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=errors)
        errors.seek(0)
        last = tmp_path / "last.txt"
        where = last.read_text() if last.is_file() else "before the first case"
        assert process.returncode == 0, f"{where}: {errors.read()[-2000:]}"
    *failures, end = [json.loads(line) for line in process.stdout.splitlines() if line[:1] == b"{"]
    assert failures == []
    assert end == {"done": COUNT}
