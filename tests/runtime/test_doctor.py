"""The doctor finds what is wrong and says how to mend it."""

from __future__ import annotations

import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import pytest
from toy_bundle import blob, copy_bundle, edit_manifest, replace_file

from sonomime.runtime.doctor import Check, as_data, examine


def found(bundle: Path) -> dict[str, Check]:
    return {check.name: check for check in examine(bundle)}


def test_a_sound_installation_passes(toy_bundle: Path) -> None:
    checks = found(toy_bundle)
    assert list(checks) == [
        "python", "numpy", "opencv", "pyav", "onnxruntime", "gpu", "bundle", "temporary folder",
        "cache",
    ]  # fmt: skip
    assert [check.name for check in checks.values() if check.state == "fail"] == []
    assert checks["bundle"].detail.startswith("toy ")
    data = json.loads(json.dumps(as_data(list(checks.values()))))
    assert data["ok"] is True and len(data["checks"]) == len(checks)


@pytest.mark.parametrize(
    ("module", "check", "fix"),
    [
        ("onnxruntime", "onnxruntime", "sonomime[cpu]"),
        ("cv2", "opencv", "opencv-python-headless"),
        ("av", "pyav", "pip install av"),
    ],
)
def test_a_missing_module_has_its_fix(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, module: str, check: str, fix: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    failed = found(toy_bundle)[check]
    assert (failed.state, failed.exit_code) == ("fail", 4)
    assert fix in failed.fix


def test_every_encoder_that_the_sink_takes_will_do(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av.codec

    monkeypatch.setattr(av.codec, "codecs_available", {"ffv1", "libvpx-vp9"})
    check = found(toy_bundle)["pyav"]
    assert check.state == "note" and ".mp4 by libvpx-vp9" in check.detail


def test_the_cache_is_where_engines_go(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert str(Path.home() / ".cache" / "sonomime") in found(toy_bundle)["cache"].detail


def test_it_tells_what_decoded_clips_take(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "GB of" not in found(toy_bundle)["cache"].detail
    clips = tmp_path / "sonomime" / "clips"
    clips.mkdir(parents=True)
    with (clips / "one.npy").open("wb") as file:
        file.truncate(1_500_000_000)
    assert f"1.5 GB of decoded clips, which can be removed at any time: {clips}" in (
        found(toy_bundle)["cache"].detail
    )


def test_a_missing_or_changed_bundle(toy_bundle: Path, tmp_path: Path) -> None:
    missing = found(tmp_path / "none")["bundle"]
    assert (missing.state, missing.exit_code) == ("fail", 3) and missing.fix
    changed = copy_bundle(toy_bundle, tmp_path / "changed")
    (changed / "motion.onnx").write_bytes(b"")
    assert "differs" in found(changed)["bundle"].detail


def test_a_bundle_that_computes_something_else(toy_bundle: Path, tmp_path: Path) -> None:
    import cv2

    folder = copy_bundle(toy_bundle, tmp_path / "other")
    other = cv2.imencode(".png", blob(64, 0.8, 0.8))[1].tobytes()
    replace_file(folder, "golden_output.png", other)
    edit_manifest(folder, lambda data: data["tolerances"].update(frame_levels=1))
    failed = found(folder)["bundle"]
    assert failed.state == "fail" and "allowed are 1" in failed.detail and failed.fix
    edit_manifest(folder, lambda d: d["tolerances"].update(frame_levels=None, psnr_db=45))
    assert "allowed are 45 dB" in found(folder)["bundle"].detail


def test_gpus_by_the_numbers_that_device_takes(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Any = types.ModuleType("cuda.bindings.runtime")
    names = [b"NVIDIA L4\0", b"NVIDIA T4\0"]
    runtime.cudaGetDeviceCount = lambda: (0, 2)
    runtime.cudaGetDeviceProperties = lambda index: (0, types.SimpleNamespace(name=names[index]))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    check = list(examine(toy_bundle))[5]
    assert (check.name, check.state) == ("gpu", "ok")
    assert "0 NVIDIA L4, 1 NVIDIA T4" in check.detail


def test_the_gpu_that_was_named_is_tried(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    assert found(toy_bundle)["bundle"].state == "ok"
    failed = {check.name: check for check in examine(toy_bundle, 0)}["bundle"]
    assert (failed.state, failed.exit_code) == ("fail", 4) and failed.fix


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
