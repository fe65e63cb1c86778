"""The page of engine builds: a row per stage and precision, totals that agree with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lively import SMALL

from sonomime.benchmarks import engines


def test_every_stage_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    out = tmp_path / "engines.md"
    changes = [word for change in SMALL for word in ("--set", change)]
    monkeypatch.setattr("sys.argv", ["engines", "lite", "-o", str(out), *changes])
    engines.main()
    text = out.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| lite")]
    assert len(rows) == 10 and "10 stages of 2 bundles" in text
    halves = [row for row in rows if "| fp16 | generator" in row]
    assert len(halves) == 1 and "float16" in halves[0]
    assert "model.image_size=128" in text and "not run" in text
