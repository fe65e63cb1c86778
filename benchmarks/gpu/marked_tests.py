"""The tests that are marked gpu, run by pytest in this process, one row each."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..measure import installed
from .child import Row, Say

ROOT = Path(__file__).resolve().parents[2]


def run_tests(say: Say, done: Collection[str], root: Path = ROOT) -> bool:
    """Run those that are not done; returns whether all are. `root`: of the checkout."""
    missing = [name for name in ("pytest", "hypothesis") if not installed(name)]
    if missing or not (root / "tests").is_dir():
        why = f"they need {' and '.join(missing)}" if missing else "they need a checkout"
        say({"absent": why})
        return True
    import pytest

    files = sorted((root / "tests").rglob("test_*.py"))
    marked = [str(file) for file in files if "mark.gpu" in file.read_text(encoding="utf-8")]
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    os.chdir(root)
    reporter = Reporter(say, done)
    pytest.main([*options, *marked], [reporter])
    return not reporter.session.shouldstop


class Reporter:
    """A pytest plugin: reports each test, and ends the run after one that failed, since a CUDA
    error would fail all others."""

    def __init__(self, say: Say, done: Collection[str]) -> None:
        self._say, self._done = say, done
        self._row: Row = {}
        self.session: Any = None

    def pytest_sessionstart(self, session: Any) -> None:
        self.session = session

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and report.nodeid not in self._done:
            self._say({"name": report.nodeid, "failed": _cause(report)})

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid not in self._done]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._row = {"name": nodeid, "seconds": 0.0}
        self._say({"name": nodeid, "begun": True})

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test has one for its set-up, one for its call, one for its teardown."""
        self._row["seconds"] += report.duration
        if report.failed:
            self._row["failed"] = _cause(report)
        elif report.skipped:
            self._row["skipped"] = str(report.longrepr[-1]).removeprefix("Skipped: ")

    def pytest_runtest_logfinish(self) -> None:
        self._say(self._row)
        if "failed" in self._row:
            self.session.shouldstop = "another process runs the rest"


def _cause(report: Any) -> str:
    """The error of a report, in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else str(report.longrepr)).strip().splitlines()
    return (lines or ["it does not say why"])[0 if crash else -1][:300]
