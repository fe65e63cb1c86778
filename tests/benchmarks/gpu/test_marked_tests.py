"""The tests that are marked gpu are run by a process that reports each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sonomime.benchmarks.gpu.marked_tests import run_tests

TESTS = """
import pytest

pytestmark = pytest.mark.gpu

def test_a(): ...

@pytest.fixture
def broken():
    yield
    raise OSError("no memory")

def test_b(broken): ...

def test_c():
    pytest.skip("no cupy")
"""
PROGRAM = """
import json, pathlib, sys
from sonomime.benchmarks.gpu.child import speaker
from sonomime.benchmarks.gpu.marked_tests import run_tests
sys.exit(not run_tests(speaker(), json.loads(sys.argv[2]), pathlib.Path(sys.argv[1])))
"""


def test_every_test_has_a_row_and_one_that_failed_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_marked.py").write_text(TESTS)
    (tmp_path / "tests" / "test_other.py").write_text("import none_such\n")
    (tmp_path / "tests" / "test_broken.py").write_text("import none_such  # mark.gpu\n")
    rows: dict[str, dict[str, Any]] = {}
    for complete in (False, True):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), json.dumps(list(rows))]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) is complete
        rows |= {row["name"]: row for row in map(json.loads, ended.stdout.splitlines())}
    broken, a, b, c = rows.values()
    assert broken["name"] == "tests/test_broken.py" and "none_such" in broken["failed"]
    assert a.keys() == {"name", "seconds"}
    assert "no memory" in b["failed"] and c["skipped"] == "no cupy"


def test_without_a_checkout_there_are_none(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    assert run_tests(heard.append, [], tmp_path) and "checkout" in heard[0]["absent"]
