"""The runtime's backends, one by one: held against the golden frame, absent, or failed."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import make_toy_bundle, replace_file

from sonomime.benchmarks import backend_check
from sonomime.benchmarks.backend_check import backend_lines, check_backends
from sonomime.runtime.bundle import Bundle
from sonomime.runtime.errors import BackendError
from sonomime.runtime.png import png_bytes


def test_backends_are_held_against_the_golden_frame(tmp_path: Path) -> None:
    folder = make_toy_bundle(tmp_path / "toy")
    (row,) = check_backends(Bundle.open(folder), 3, ["ort-cpu"])
    assert row["agrees"] and row["golden"]["levels_apart"] <= 8
    assert list(row["stages_ms"]) == ["keypoints", "transfer", "motion", "generator"]
    assert min(row["cold_ms"].values()) > 0 and row["frame_ms"]["count"] == 3
    assert "gpu" not in row, "which idled"
    replace_file(folder, "golden_output.png", png_bytes(np.full((64, 64), 200, np.uint8)))
    (row,) = check_backends(Bundle.open(folder), 2, ["ort-cpu"])
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

    monkeypatch.setattr(backend_check, "load_flavour", lambda name: (None, trt))
    monkeypatch.setattr(backend_check, "open_device", lambda: seen)
    monkeypatch.setattr(backend_check, "build_engines", build)
    return seen


def test_a_gpu_that_rtx_does_not_serve_is_no_failure_and_nothing_is_built(
    toy_bundle: Path, gpu: Any
) -> None:
    (row,) = check_backends(Bundle.open(toy_bundle), 1, ["rtx"])
    assert "builds no portable engines for SM90" in row["absent"] and "ort-cuda" in row["cure"]
    assert gpu.built == [] and "failed" not in row


def test_what_is_there_and_fails_is_not_called_absent(toy_bundle: Path, gpu: Any) -> None:
    gpu.capability = (8, 9)
    rows = list(check_backends(Bundle.open(toy_bundle), 1, ["tensorrt", "rtx"]))
    assert gpu.built == ["tensorrt", "rtx"]
    assert all("could not be built" in row["failed"] and "absent" not in row for row in rows)
    assert "tensorrt    failed: stage 'motion'" in "\n".join(backend_lines(rows))
