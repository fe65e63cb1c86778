"""The doctor finds what is wrong and says how to fix it; the golden frame is made again."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import av.codec
import numpy as np
import pytest
from toy_bundle import blob, copy_bundle, edit_manifest, replace_file

from sonomime.cli import main
from sonomime.runtime.backends import open_backend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.bundle.manifest import Tolerances
from sonomime.runtime.doctor import Check, examine
from sonomime.runtime.golden import Agreement, agreement, golden_frame
from sonomime.runtime.media.frames import png_bytes
from sonomime.runtime.readers.stills import read_image
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BundleError

Patch = pytest.MonkeyPatch


def fake_torch(cuda: str | None, usable: bool = False) -> Any:
    space = types.SimpleNamespace
    gpu = space(is_available=lambda: usable)
    return space(__version__="2.10.0", version=space(cuda=cuda), cuda=gpu)


GPUS = types.SimpleNamespace(
    cudaGetDeviceCount=lambda: (0, 2),
    cudaGetDeviceProperties=lambda i: (0, types.SimpleNamespace(name=[b"L4\0", b"T4\0"][i])),
)


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch: Patch) -> None:
    """A CPU build of torch, which need not be imported."""
    monkeypatch.setitem(sys.modules, "torch", fake_torch(None))


def check(name: str, bundle: Path, device: int | None = None) -> Check:
    return next(check for check in examine(bundle, device) if check.name == name)


def test_a_sound_installation_passes(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json", "--bundle", str(toy_bundle)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in data["checks"]] == [
        "python", "numpy", "opencv", "pillow", "tqdm", "pyav", "pydicom", "pynrrd", "onnxruntime",
        "openvino", "gpu", "torch", "onnx", "bundle", "temporary folder", "cache",
    ]  # fmt: skip
    assert data["ok"] and data["checks"][13]["detail"].startswith("toy ")
    assert main(["doctor", "--json", "--bundle", str(tmp_path / "none")]) == 3
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize(
    ("module", "name", "code", "fix"),
    [
        ("onnxruntime", "onnxruntime", 4, "sonomime[cpu]"),
        ("openvino", "openvino", 0, "sonomime[openvino]"),
        ("cv2", "opencv", 4, "opencv-python-headless"),
        ("av", "pyav", 4, "pip install av"),
        ("PIL", "pillow", 4, "pip install pillow"),
        ("tqdm", "tqdm", 4, "pip install tqdm"),
        ("torch", "torch", 0, "https://download.pytorch.org/whl/cpu"),
        ("onnx", "onnx", 0, "sonomime[train]"),
    ],
)
def test_a_missing_module_has_its_fix(
    toy_bundle: Path, monkeypatch: Patch, module: str, name: str, code: int, fix: str
) -> None:
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    missing = check(name, toy_bundle)
    assert (missing.state, missing.exit_code) == ("fail" if code else "note", code)
    assert fix in missing.fix


@pytest.mark.parametrize(
    ("name", "module", "fake", "words"),
    [
        ("torch", "torch", fake_torch(None), "2.10.0, CPU build"),
        ("torch", "torch", fake_torch("12.8"), "no GPU"),
        ("torch", "torch", fake_torch("12.8", True), "CUDA 12.8 build"),
        ("gpu", "cuda.bindings.runtime", GPUS, "0 L4, 1 T4"),  # the numbers that --device takes
    ],
)
def test_what_runs_on_a_gpu(
    toy_bundle: Path, monkeypatch: Patch, name: str, module: str, fake: Any, words: str
) -> None:
    monkeypatch.setitem(sys.modules, module, fake)
    found = check(name, toy_bundle)
    assert found.state == "ok" and words in found.detail


@pytest.mark.parametrize("cause", [None, KeyboardInterrupt()])
def test_a_broken_package_is_a_failure_and_a_signal_is_not(
    toy_bundle: Path, monkeypatch: Patch, cause: BaseException | None
) -> None:
    def broken(name: str) -> Any:
        raise OSError("libc10.so: cannot open shared object file\nand more") from cause

    monkeypatch.setattr(importlib, "import_module", broken)
    if cause is not None:
        with pytest.raises(KeyboardInterrupt):
            check("torch", toy_bundle)
        return
    torch = check("torch", toy_bundle)
    assert (torch.state, torch.exit_code) == ("fail", 4)
    assert "libc10.so" in torch.detail and "\n" not in torch.detail and torch.fix


@pytest.mark.parametrize(
    ("codecs", "state", "words"),
    [({"ffv1", "libvpx-vp9"}, "note", "libvpx-vp9"), ({"ffv1"}, "fail", ".mp4"),
     ({"libx264"}, "fail", ".mkv")],
)  # fmt: skip
def test_encoders(
    toy_bundle: Path, monkeypatch: Patch, codecs: set[str], state: str, words: str
) -> None:
    monkeypatch.setattr(av.codec, "codecs_available", codecs)
    found = check("pyav", toy_bundle)
    assert found.state == state and words in found.detail and found.fix


def test_a_bundle_that_cannot_be_used(toy_bundle: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    changed = copy_bundle(toy_bundle, tmp_path / "changed")
    (changed / "motion.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    for folder, device, code in (
        (tmp_path / "none", None, 3),
        (changed, None, 3),
        (toy_bundle, 0, 4),
    ):
        found = check("bundle", folder, device)
        assert (found.state, found.exit_code) == ("fail", code) and found.fix
    other = copy_bundle(toy_bundle, tmp_path / "other")  # computes something else
    replace_file(other, "golden_output.png", png_bytes(blob(64, 0.8, 0.8)))
    for tolerances, allowed in (
        ({"frame_levels": 1}, "allowed: 1 "),
        ({"frame_levels": None, "psnr_db": 45}, "allowed: 45 dB"),
    ):
        edit_manifest(other, lambda data, t=tolerances: data["tolerances"].update(t))
        found = check("bundle", other)
        assert found.state == "fail" and allowed in found.detail and found.fix


def test_folders_that_cannot_be_written_and_what_the_cache_holds(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    none = tmp_path / "none"  # a bundle takes time
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    for name, variable in (("cache", "XDG_CACHE_HOME"), ("temporary folder", "TMPDIR")):
        found = check(name, none)
        assert (found.state, found.exit_code) == ("fail", 7) and variable in found.fix
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert str(Path.home() / ".cache" / "sonomime") in check("cache", none).detail
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "GB of" not in check("cache", none).detail
    clips = tmp_path / "sonomime" / "clips"
    clips.mkdir(parents=True)
    with (clips / "one.npy").open("wb") as file:
        file.truncate(1_500_000_000)
    assert f"1.5 GB of decoded clips in {clips}" in check("cache", none).detail


def found_in(folder: Path | None) -> Agreement:
    bundle = Bundle.open(folder)
    session = Session(bundle.manifest, open_backend("ort-cpu", bundle, threads=1))
    try:
        return agreement(golden_frame(session, bundle), bundle)
    finally:
        session.close()


def test_the_shipped_bundle_makes_its_golden_frame_on_the_cpu() -> None:
    bundle, found = Bundle.open(), found_in(None)
    assert found.is_right(bundle.manifest, "fp32")
    assert found.levels <= 2 and found.psnr_db > 70
    golden, still = (
        read_image(bundle.folder / each.file).astype(int)
        for each in (bundle.manifest.golden.output, bundle.manifest.golden.source)
    )
    assert np.abs(golden - still).mean() > 1, "or holding the still would do"


def test_the_golden_motion_is_the_one_that_is_made(toy_bundle: Path, tmp_path: Path) -> None:
    assert found_in(toy_bundle).psnr_db > 30
    other = copy_bundle(toy_bundle, tmp_path / "other")
    edit_manifest(other, lambda data: data["golden"].update(motion="absolute"))
    assert found_in(other).psnr_db < 25
    with pytest.raises(BundleError):
        agreement(np.zeros((32, 32), np.uint8), Bundle.open(toy_bundle))


def test_what_a_frame_may_differ(toy_bundle: Path) -> None:
    manifest = Bundle.open(toy_bundle).manifest
    levels = replace(manifest, tolerances=Tolerances(1e-4, frame_levels=1))
    decibels = replace(manifest, tolerances=Tolerances(1.0, psnr_db=45))
    # A little more than at export.
    assert Agreement(2, 60).is_right(levels, "fp32")
    assert not Agreement(3, 60).is_right(levels, "fp32")
    assert Agreement(90, 44.5).is_right(decibels, "fp32")
    assert not Agreement(90, 43.5).is_right(decibels, "fp32")
    # Another precision than the bundle's.
    assert Agreement(90, 45.1).is_right(levels, "bf16")
    assert not Agreement(1, 44.9).is_right(decibels, "bf16")
