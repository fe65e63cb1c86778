"""What the parts of the check measure, as far as a CPU can."""

from __future__ import annotations

import json
import subprocess
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_bundle import make_toy_bundle, replace_file

from sonomime.benchmarks import gpu_check
from sonomime.benchmarks.gpu import parts
from sonomime.runtime.backends import ort_cuda
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.frames import png_bytes
from sonomime.runtime.support.errors import BackendError

CPU = torch.device("cpu")


def heard(**spec: Any) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    parts.run_part(spec | {"done": []}, lines.append)
    return lines


def refuse(*given: Any) -> Any:
    raise BackendError("broken", "look at nvidia-smi")


def test_a_backend_is_held_against_the_golden_frame(tmp_path: Path) -> None:
    folder = make_toy_bundle(tmp_path / "toy")
    spec = {"part": "backends", "bundle": str(folder), "names": ["ort-cpu"], "gpu": False}
    facts, begun, row = heard(**spec, frames=3)
    assert facts["digest"] == Bundle.open(folder).digest
    assert begun["name"] == row["name"] == "ort-cpu" and row["agrees"] and row["cold_ms"] > 0
    assert row["milliseconds"]["frame"]["count"] == 3
    assert {"keypoints", "transfer", "motion", "generator"} <= row["milliseconds"].keys()
    replace_file(folder, "golden_output.png", png_bytes(np.full((64, 64), 200, np.uint8)))
    assert heard(**spec, frames=2)[-1]["agrees"] is False
    replace_file(folder, "golden_output.png", b"no picture")
    assert "golden_output.png" in heard(**spec, frames=2)[-1]["failed"]
    assert "failed" in heard(**(spec | {"bundle": str(tmp_path)}), frames=2)[0]


def test_what_is_not_there_is_absent_and_what_is_there_and_fails_is_not(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = types.SimpleNamespace(__members__=dict.fromkeys(("SM80", "SM89", "SM120")))
    trt = types.SimpleNamespace(__version__="1.2", ComputeCapability=known)
    device = types.SimpleNamespace(capability=(9, 0))
    for name in ("ort-cuda", "tensorrt", "rtx"):
        monkeypatch.setattr(parts, "installed", lambda module: False)
        assert "is not installed" in parts.absent(name, True)
        monkeypatch.setattr(parts, "installed", lambda module: True)
        assert parts.absent(name, False) == "there is no GPU"
    monkeypatch.setattr(ort_cuda, "require_provider", refuse)
    assert parts.absent("ort-cuda", True) == "broken"
    assert parts.absent("tensorrt", True) == parts.absent("ort-cpu", False) == ""
    path = "sonomime.runtime.engines.tensorrt_packages.load_flavour"
    monkeypatch.setattr("sonomime.runtime.backends.cuda.open_device", lambda: device)
    monkeypatch.setattr(path, lambda name: (None, trt))
    assert "SM90" in parts.absent("rtx", True), "as on an H200"
    device.capability = (8, 9)
    assert parts.absent("rtx", True) == ""
    monkeypatch.setattr(path, refuse)
    spec = {"part": "backends", "bundle": str(toy_bundle), "names": ["rtx"], "gpu": True}
    row = heard(**spec, frames=1)[-1]
    assert "broken" in row["failed"] and "absent" not in row


def test_the_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sonomime.runtime.backends.cuda.open_device", refuse)
    facts, gpu = heard(part="machine")
    assert facts["torch"]["version"] == torch.__version__
    assert gpu == {"gpu": {"absent": "broken"}}
    found = types.SimpleNamespace(name="L4", capability=(8, 9))
    monkeypatch.setattr("sonomime.runtime.backends.cuda.open_device", lambda: found)
    assert heard(part="machine")[-1]["gpu"]["in_torch"] is False


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


def test_every_test_has_a_row_and_one_that_failed_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_marked.py").write_text(TESTS)
    (tmp_path / "tests" / "test_other.py").write_text("import none_such\n")
    (tmp_path / "tests" / "test_broken.py").write_text("import none_such  # mark.gpu\n")
    rows: dict[str, dict[str, Any]] = {}
    for complete in (False, True):
        command = gpu_check.command({"part": "tests", "root": str(tmp_path), "done": list(rows)})
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) is complete
        rows |= {row["name"]: row for row in map(json.loads, ended.stdout.splitlines())}
    broken, a, b, c = rows.values()
    assert broken["name"] == "tests/test_broken.py" and "none_such" in broken["failed"]
    assert a.keys() == {"name", "seconds"}
    assert "no memory" in b["failed"] and c["skipped"] == "no cupy"


def test_without_a_checkout_there_are_none(tmp_path: Path) -> None:
    assert "checkout" in heard(part="tests", root=tmp_path)[0]["absent"]
