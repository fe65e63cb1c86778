"""`bench --backend torch` where a way fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_bundle import make_toy_bundle

from sonomime.benchmarks import torch_bench
from sonomime.benchmarks.gpu import torch_check
from sonomime.benchmarks.gpu.torch_check import torch_lines
from sonomime.runtime.bundle.bundle import Bundle


def test_ways_that_were_not_run_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*given: Any) -> Any:
        yield {"row": {"variant": given[-1][0].name, "failed": "an illegal address"}}

    monkeypatch.setattr(torch_check, "check_model", check)
    monkeypatch.setattr(torch_bench, "_model", lambda *given: (None, "untrained"))
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy"))
    rows = torch_bench.measure_torch(bundle, None, 1, 1)["ways"]
    assert [row["variant"] for row in rows] == ["eager, fp32", "plain loop, fp32"]
    assert "may spoil this process" in rows[1]["left_out"]
    assert "left out: the way before" in list(torch_lines(rows))[-1]
