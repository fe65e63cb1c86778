"""The doctor finds what is wrong and says how to fix it."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import cv2
import pytest
from toy_bundle import blob, copy_bundle, edit_manifest, replace_file

from sonomime.runtime.doctor import Check, as_data, examine


def put_torch(monkeypatch: pytest.MonkeyPatch, cuda: str | None, usable: bool = False) -> None:
    torch: Any = types.ModuleType("torch")
    torch.__version__ = "2.10.0"
    torch.version = types.SimpleNamespace(cuda=cuda)
    torch.cuda = types.SimpleNamespace(is_available=lambda: usable)
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU build of torch, which need not be imported."""
    put_torch(monkeypatch, None)


def found(bundle: Path, device: int | None = None) -> dict[str, Check]:
    return {check.name: check for check in examine(bundle, device)}


def test_a_sound_installation_passes(toy_bundle: Path) -> None:
    checks = found(toy_bundle)
    assert list(checks) == [
        "python", "numpy", "opencv", "pillow", "tqdm", "pyav", "onnxruntime", "gpu", "torch",
        "onnx", "bundle", "temporary folder", "cache",
    ]  # fmt: skip
    assert [check.name for check in checks.values() if check.state == "fail"] == []
    assert checks["bundle"].detail.startswith("toy ")
    data = json.loads(json.dumps(as_data(list(checks.values()))))
    assert data["ok"] is True and len(data["checks"]) == len(checks)


@pytest.mark.parametrize(
    ("module", "check", "state", "fix"),
    [
        ("onnxruntime", "onnxruntime", "fail", "sonomime[cpu]"),
        ("cv2", "opencv", "fail", "opencv-python-headless"),
        ("av", "pyav", "fail", "pip install av"),
        ("PIL", "pillow", "fail", "pip install pillow"),
        ("tqdm", "tqdm", "fail", "pip install tqdm"),
        ("torch", "torch", "note", "https://download.pytorch.org/whl/cpu"),
        ("onnx", "onnx", "note", "sonomime[train]"),
    ],
)
def test_a_missing_module_has_its_fix(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, module: str, check: str, state: str, fix: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    missing = found(toy_bundle)[check]
    assert (missing.state, missing.exit_code) == (state, 4 if state == "fail" else 0)
    assert fix in missing.fix


@pytest.mark.parametrize(
    ("cuda", "usable", "words"),
    [(None, False, "CPU build"), ("12.8", False, "no GPU"), ("12.8", True, "CUDA 12.8 build")],
)
def test_which_build_of_torch_there_is(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None, usable: bool, words: str
) -> None:
    put_torch(monkeypatch, cuda, usable)
    check = found(toy_bundle)["torch"]
    assert check.state == "ok" and check.detail.startswith("2.10.0, ") and words in check.detail


@pytest.mark.parametrize("cause", [None, KeyboardInterrupt()])
def test_a_broken_package_is_a_failure_and_a_signal_is_not(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, cause: BaseException | None
) -> None:
    def broken(name: str) -> Any:
        raise OSError("libc10.so: cannot open shared object file\nand more") from cause

    monkeypatch.setattr(importlib, "import_module", broken)
    if cause is not None:
        with pytest.raises(KeyboardInterrupt):
            found(toy_bundle)
        return
    torch = found(toy_bundle)["torch"]
    assert (torch.state, torch.exit_code) == ("fail", 4)
    assert "libc10.so" in torch.detail and "\n" not in torch.detail and torch.fix


def test_another_encoder_will_do(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av.codec

    monkeypatch.setattr(av.codec, "codecs_available", {"ffv1", "libvpx-vp9"})
    check = found(toy_bundle)["pyav"]
    assert check.state == "note" and "libvpx-vp9" in check.detail


def test_where_the_cache_is_and_what_its_clips_take(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert str(Path.home() / ".cache" / "sonomime") in found(toy_bundle)["cache"].detail
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "GB of" not in found(toy_bundle)["cache"].detail
    clips = tmp_path / "sonomime" / "clips"
    clips.mkdir(parents=True)
    with (clips / "one.npy").open("wb") as file:
        file.truncate(1_500_000_000)
    detail = found(toy_bundle)["cache"].detail
    assert "1.5 GB of decoded clips" in detail and str(clips) in detail


def test_a_bundle_that_cannot_be_used(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = copy_bundle(toy_bundle, tmp_path / "changed")
    (changed / "motion.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    for folder, device, code in (
        (tmp_path / "none", None, 3),
        (changed, None, 3),
        (toy_bundle, 0, 4),
    ):
        check = found(folder, device)["bundle"]
        assert (check.state, check.exit_code) == ("fail", code) and check.fix


def test_a_bundle_that_computes_something_else(toy_bundle: Path, tmp_path: Path) -> None:
    folder = copy_bundle(toy_bundle, tmp_path / "other")
    other = cv2.imencode(".png", blob(64, 0.8, 0.8))[1].tobytes()
    replace_file(folder, "golden_output.png", other)
    for tolerances, allowed in (
        ({"frame_levels": 1}, "allowed: 1 "),
        ({"frame_levels": None, "psnr_db": 45}, "allowed: 45 dB"),
    ):
        edit_manifest(folder, lambda data, t=tolerances: data["tolerances"].update(t))
        check = found(folder)["bundle"]
        assert check.state == "fail" and allowed in check.detail and check.fix


def test_gpus_by_the_numbers_that_device_takes(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [b"NVIDIA L4\0", b"NVIDIA T4\0"]
    runtime = types.SimpleNamespace(
        cudaGetDeviceCount=lambda: (0, 2),
        cudaGetDeviceProperties=lambda index: (0, types.SimpleNamespace(name=names[index])),
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)  # type: ignore[arg-type]
    check = next(check for check in examine(toy_bundle) if check.name == "gpu")
    assert check.state == "ok" and "0 NVIDIA L4, 1 NVIDIA T4" in check.detail


def test_folders_that_cannot_be_written(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    checks = found(toy_bundle)
    for name, variable in (("cache", "XDG_CACHE_HOME"), ("temporary folder", "TMPDIR")):
        assert (checks[name].state, checks[name].exit_code) == ("fail", 7)
        assert variable in checks[name].fix
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # no home folder
    check = found(toy_bundle)["cache"]
    assert (check.state, check.exit_code) == ("fail", 7) and "XDG_CACHE_HOME" in check.fix
