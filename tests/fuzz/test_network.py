"""Whatever a peer on the network sends, it is taken or refused, and the others are served.

Some hundred damaged streams; ``make fuzz`` tries ten thousand.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastcrc")

from fuzz.messages import KINDS
from fuzz.network import try_clients, try_readers, try_server

COUNT = int(os.environ.get("SONOMIME_FUZZ", "200"))
PROCESSES = multiprocessing.get_context("spawn")


def counts_of(job: Callable[[int, Path], None], folder: Path) -> dict[str, int]:
    """Run it in a process of its own, whose threads, files and memory are its alone."""
    process = PROCESSES.Process(target=job, args=(COUNT, folder), daemon=True)
    process.start()
    process.join()
    case, found = folder / "case.txt", folder / "failures.txt"
    at = case.read_text().strip() if case.is_file() else "before the first case"
    assert process.exitcode == 0, f"it crashed or hung at: {at}"
    assert found.read_text() == "done"
    return json.loads((folder / "counts.json").read_text())


def test_damaged_messages_are_read_or_refused(tmp_path: Path) -> None:
    counts = counts_of(try_readers, tmp_path)
    assert counts["cases"] == COUNT * len(KINDS)
    for what in ("images", "texts", "states", "metadata"):  # much gets past the checksums
        assert counts["messages"] >= counts[what] >= COUNT // 2
    assert counts["texts"] >= counts["orders"] >= COUNT // 10


def test_a_server_outlives_damaged_streams(tmp_path: Path) -> None:
    counts = counts_of(try_server, tmp_path)
    assert counts["cases"] == COUNT
    assert counts["messages"] >= COUNT // 5 and counts["orders"] >= COUNT // 20


def test_feeds_and_outlets_outlive_damaged_streams(tmp_path: Path) -> None:
    counts = counts_of(try_clients, tmp_path)
    assert counts["cases"] == COUNT
    assert counts["images"] >= COUNT // 40 and counts["messages"] >= COUNT // 20
    assert counts.get("logged by sonomime", 0) <= 300, "each of three feeds says a thing once"
