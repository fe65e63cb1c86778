"""The kernels compiled on the spot, beside torch; the check itself notices what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from sonomime.benchmarks.gpu import kernels as module
from sonomime.benchmarks.gpu.kernel_check import cases, check_kernels, kernel_lines
from sonomime.benchmarks.gpu.kernels import Kernels, build_command
from sonomime.benchmarks.gpu.stage_chain import DeviceChain
from sonomime.benchmarks.gpu.torch_check import Pictures, animate
from sonomime.benchmarks.lively import lively_model, small_config, speckle
from sonomime.runtime.support.errors import BackendError
from sonomime.training.models import operators
from sonomime.training.models.keypoints.family import KeypointFamily

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("there is no C++ compiler")
    return Kernels.build("cpu", tmp_path_factory.mktemp("kernels"))


def test_every_case_agrees_with_torch(host: Kernels) -> None:
    rows = check_kernels(host, CPU, cases(small=True), repeats=1)
    assert len(rows) == 5 and all(row["agrees"] for row in rows)
    assert all(row["microseconds"] > 0 and row["torch_microseconds"] > 0 for row in rows)
    assert not any("bandwidth_share" in row for row in rows), "the CPU's caches are not cleared"
    assert "DIFFERS" not in "\n".join(kernel_lines(rows))


def test_a_kernel_that_is_wrong_is_seen(host: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Kernels.compose_motion
    monkeypatch.setattr(Kernels, "compose_motion", lambda *given: right(*given).mul_(1.01))
    rows = check_kernels(host, CPU, cases(small=True)[-1:], repeats=1)
    assert not rows[0]["agrees"]
    assert "DIFFERS" in "\n".join(kernel_lines(rows))
    monkeypatch.setattr(Kernels, "compose_motion", lambda *given: right(*given).mul_(torch.nan))
    (row,) = check_kernels(host, CPU, cases(small=True)[-1:], repeats=1)
    assert not row["agrees"] and json.dumps(row, allow_nan=False)


def test_shares_are_of_one_copy(host: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [check_kernels(host, CPU, [case], repeats=1)[0] for case in cases(small=True)]
    assert len({row["copy_gb_per_second"] for row in rows}) == 1


def test_a_kernel_that_fails_costs_no_other(host: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise BackendError("CUDA error 700")

    monkeypatch.setattr(Kernels, "sparse_motion", fail)
    rows = check_kernels(host, CPU, cases(small=True), repeats=1)
    assert [row.get("agrees") for row in rows] == [True, True, True, None, True]
    assert "failed: BackendError: CUDA error 700" in "\n".join(kernel_lines(rows))


def test_half_features_in_eights_are_read_as_they_lie(
    host: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = []
    call = Kernels._call
    monkeypatch.setattr(
        Kernels, "_call", lambda self, *given: (layouts.append(given[-1]), call(self, *given))[1]
    )
    feature = torch.randn(1, 8, 6, 6).half()
    last = feature.contiguous(memory_format=torch.channels_last)
    maps = torch.zeros(1, 6, 6, 2), torch.ones(1, 1, 6, 6)
    results = [host.warp_occlude(f, *maps, "half_pixel") for f in (feature, last, last.float())]
    assert layouts == [module.LINEAR, module.HWC8, module.LINEAR]
    assert torch.equal(results[0], results[1]) and results[1].stride() == last.stride()


@pytest.mark.parametrize("preset", ["ours-pt", "fomm"])
def test_stages_compute_the_same_with_the_kernels(host: Kernels, preset: str) -> None:
    model = lively_model(small_config(preset))
    frames = []
    before = operators.warp_occlude
    for kernels in (None, host):
        chain = KeypointFamily().chain(model)
        pictures = Pictures(speckle(128), speckle(128, seed=1), ())
        session = pictures.begin(chain, DeviceChain(chain, CPU, kernels=kernels))
        frames.append(animate(session, speckle(128, seed=2)))
    assert abs(frames[0].astype(int) - frames[1]).max() <= 1
    assert operators.warp_occlude is before


def test_nothing_to_compile_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name, path=None: None)
    monkeypatch.delenv("CXX", raising=False)
    for device, cure in (("cpu", r"g\+\+"), ("cuda", "CUDA toolkit")):
        with pytest.raises(BackendError) as caught:
            Kernels.build(device, tmp_path)
        assert caught.value.hint and pytest.importorskip("re").search(cure, caught.value.hint)
    monkeypatch.setattr(module, "SOURCES", tmp_path / "none")
    with pytest.raises(BackendError, match="sources"):
        build_command("cpu", tmp_path / "a.so")


def test_a_compiler_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    (tmp_path / "host.cpp").write_text("#error no\n")
    monkeypatch.setattr(module, "SOURCES", tmp_path)
    with pytest.raises(BackendError, match="cannot compile the kernels"):
        Kernels.build("cpu", tmp_path)
