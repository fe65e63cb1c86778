"""What the kernels are timed and compared on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sonomime.benchmarks.gpu import kernel_check
from sonomime.benchmarks.gpu.kernel_check import Case, check_kernels
from sonomime.benchmarks.gpu.kernels import Kernels, compiler

CPU = torch.device("cpu")


def test_smooth_motion_is_timed_and_a_rough_one_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbouring threads read neighbouring pixels in a frame, and so in what is timed."""
    if compiler() is None:
        pytest.skip("there is no C++ compiler")
    steps: dict[str, list[float]] = {"compared": [], "timed": []}
    phase = "compared"
    warp, times = Kernels.warp_occlude, kernel_check._times

    def watched(kernels: Kernels, feature: Tensor, where: Tensor, *rest: Tensor) -> Tensor:
        steps[phase].append(float(32 * where.diff(dim=2).abs().max()))
        return warp(kernels, feature, where, *rest)

    def timed(*given: object) -> object:
        nonlocal phase
        phase = "timed"
        return times(*given)

    monkeypatch.setattr(Kernels, "warp_occlude", watched)
    monkeypatch.setattr(kernel_check, "_times", timed)
    case = Case("warp_occlude", torch.float32, (3, 20, 24))
    (row,) = check_kernels(Kernels.build("cpu", tmp_path), CPU, [case], repeats=1)
    assert row["agrees"]
    assert min(steps["compared"]) > 32, "pixels between neighbours: all over the picture"
    assert max(steps["timed"]) < 4
