"""The tests that are marked gpu are run by a subprocess that reports each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sonomime.benchmarks.gpu.child import Message
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
run_tests(speaker(), json.loads(sys.argv[2]), pathlib.Path(sys.argv[1]))
"""


def run(root: Path, done: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", PROGRAM, str(root), json.dumps(done)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_every_test_has_a_row_and_one_that_failed_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_marked.py").write_text(TESTS)
    (tmp_path / "tests" / "test_other.py").write_text("import none_such\n")
    (tmp_path / "tests" / "test_broken.py").write_text("import none_such  # mark.gpu\n")
    done: list[str] = []
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(2):
        messages = run(tmp_path, done)
        found = [message["row"] for message in messages if "row" in message]
        rows |= {row["name"].rpartition("/")[2].rpartition(":")[2]: row for row in found}
        done += [row["name"] for row in found]
    assert messages[-1] == {"complete": True}
    assert list(rows) == ["test_broken.py", "test_a", "test_b", "test_c"]
    assert "none_such" in rows["test_broken.py"]["failed"]
    assert rows["test_a"].keys() == {"name", "seconds"}
    assert "no memory" in rows["test_b"]["failed"] and rows["test_c"]["skipped"] == "no cupy"


def test_without_a_checkout_there_are_none(tmp_path: Path) -> None:
    heard: list[Message] = []
    run_tests(heard.append, [], tmp_path)
    (said,) = heard
    assert said["complete"] and "checkout" in said["absent"]
