"""The runtime's backends, one by one: held against the golden frame, absent, or failed."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import make_toy_bundle, replace_file

from sonomime.benchmarks.gpu import backend_check
from sonomime.benchmarks.gpu.backend_check import backend_lines, check_backend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.png import png_bytes
from sonomime.runtime.support.errors import BackendError


def test_backends_are_held_against_the_golden_frame(tmp_path: Path) -> None:
    folder = make_toy_bundle(tmp_path / "toy")
    row = check_backend(Bundle.open(folder), "ort-cpu", 3, gpu=False)
    assert row["agrees"] and row["golden"]["levels_apart"] <= 8
    assert list(row["stages_ms"]) == ["keypoints", "transfer", "motion", "generator"]
    assert min(row["cold_ms"].values()) > 0 and row["frame_ms"]["count"] == 3
    assert "gpu" not in row, "which idled"
    replace_file(folder, "golden_output.png", png_bytes(np.full((64, 64), 200, np.uint8)))
    row = check_backend(Bundle.open(folder), "ort-cpu", 2, gpu=False)
    assert not row["agrees"] and "DIFFERS" in "\n".join(backend_lines([row]))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An H200 and both TensorRTs, as far as it takes to be asked; building is noted, and fails."""
    known = dict.fromkeys(("SM80", "SM89", "SM120"))
    trt = types.SimpleNamespace(
        __version__="1.2", ComputeCapability=types.SimpleNamespace(__members__=known)
    )
    seen = types.SimpleNamespace(built=[], capability=(9, 0))

    def build(bundle: Bundle, flavour: str) -> Any:
        seen.built.append(flavour)
        raise BackendError("stage 'motion' could not be built", "export again")

    monkeypatch.setattr(backend_check, "installed", lambda module: True)
    monkeypatch.setattr(backend_check, "load_flavour", lambda name: (None, trt))
    monkeypatch.setattr(backend_check, "open_device", lambda: seen)
    monkeypatch.setattr(backend_check, "build_engines", build)
    return seen


def test_a_gpu_that_rtx_does_not_serve_is_no_failure_and_nothing_is_built(
    toy_bundle: Path, gpu: Any
) -> None:
    row = check_backend(Bundle.open(toy_bundle), "rtx", 1, gpu=True)
    assert "builds no portable engines for SM90" in row["absent"] and "ort-cuda" in row["cure"]
    assert gpu.built == [] and "failed" not in row


def test_what_is_there_and_fails_is_not_called_absent(toy_bundle: Path, gpu: Any) -> None:
    gpu.capability = (8, 9)
    bundle = Bundle.open(toy_bundle)
    rows = [check_backend(bundle, name, 1, gpu=True) for name in ("tensorrt", "rtx")]
    assert gpu.built == ["tensorrt", "rtx"]
    assert all("could not be built" in row["failed"] and "absent" not in row for row in rows)
    assert "tensorrt    failed: stage 'motion'" in "\n".join(backend_lines(rows))


def test_a_gpu_that_others_can_use_and_cuda_bindings_cannot_is_a_failure(
    toy_bundle: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise BackendError("uncorrectable ECC error", "look at nvidia-smi")

    def word(gpu: bool) -> str:
        row = check_backend(Bundle.open(toy_bundle), "tensorrt", 1, gpu)
        assert row.popitem() == ("cure", "look at nvidia-smi")
        return row.popitem()[0]

    monkeypatch.setattr(backend_check, "open_device", broken)
    assert word(gpu=True) == "failed"
    assert word(gpu=False) == "absent", "as where there is no GPU at all"
    missing = "cuda.bindings"
    monkeypatch.setattr(backend_check, "installed", lambda module: module != missing)
    assert word(gpu=True) == "absent"


def test_what_is_installed_and_cannot_be_loaded_is_a_failure(
    toy_bundle: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise BackendError("tensorrt cannot be imported: libnvinfer.so.11", "install it")

    monkeypatch.setattr(backend_check, "load_flavour", broken)
    bundle = Bundle.open(toy_bundle)
    assert "libnvinfer" in check_backend(bundle, "tensorrt", 1, gpu=True)["failed"]
    monkeypatch.setattr(backend_check, "installed", lambda module: False)
    absent = check_backend(bundle, "tensorrt", 1, gpu=True)
    assert absent == {"backend": "tensorrt", "absent": "tensorrt is not installed"}


def test_an_onnx_runtime_for_cpus_is_no_failure(toy_bundle: Path, gpu: Any) -> None:
    row = check_backend(Bundle.open(toy_bundle), "ort-cuda", 1, gpu=True)
    assert "has no CUDA provider" in row["absent"] and "absent: " in "".join(backend_lines([row]))
