"""What a part's process does: where it ends, and what it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sonomime.benchmarks import gpu_check
from sonomime.benchmarks.gpu import parts, torch_check
from sonomime.benchmarks.gpu.parts import run_part


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_on_a_gpu_a_process_ends_with_its_first_failure(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(args: Any, spec: dict[str, Any]) -> Any:
        for name in "abc":
            yield {"row": {"case": name} | ({"failed": "illegal"} if name == "b" else {})}

    monkeypatch.setattr(parts, "_kernels", part)
    args = gpu_check.parser().parse_args([])
    found = list(run_part(args, {"part": "kernels", "device": device}))
    assert [message.get("row", message) for message in found] == [
        {"case": "a"}, {"case": "b", "failed": "illegal"},
        {"spoilt": True} if device == "cuda" else {"case": "c"},
    ]  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
def test_the_ways_that_a_process_is_asked_for(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    shot = torch_check.Pictures(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), ())
    monkeypatch.setattr(parts, "_device", lambda spec: None)
    monkeypatch.setattr(parts, "_untrained", lambda *given: (None, shot))
    monkeypatch.setattr(torch_check, "check_model", lambda *given: asked.extend(given[-1]) or [])
    done = [way.name for way in torch_check.variants(True, False, False)[:-1]]
    spec = {"part": "model", "name": "lite", "device": "cuda", "library": None, "done": done}
    args = gpu_check.parser().parse_args([])
    assert list(run_part(args, spec | {"compiled": compiled})) == [{"size": 2}]
    rest = ["eager, fp32, TF32, CUDA graph"]
    if compiled:
        rest += [way.name for way in torch_check.variants(True) if way.compiled]
    assert [way.name for way in asked] == rest, "what was left out, then what is compiled"
