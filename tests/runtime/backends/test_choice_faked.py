"""Which backend is taken, by `auto` and by name, where TensorRT and GPUs are played by the host."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from fake_engines import FakeTrt
from toy_bundle import blob

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend, ort_cuda
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_store import load_engines
from sonomime.runtime.support.errors import BackendError, ConfigError


def not_built(flavours: set[str], fake: FakeTrt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines of these flavours not be there, nor an ONNX Runtime with CUDA."""

    def load(bundle: Bundle, flavour: str, *arguments: object) -> dict[str, bytes]:
        if flavour in flavours:
            raise BackendError(f"no {flavour} engines are built", "run sonomime build")
        return fake.load_engines(bundle, flavour, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("sonomime.runtime.backends.tensorrt.load_engines", load)
    monkeypatch.setattr(ort_cuda.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])


def chosen(bundle: Path) -> str:
    backend = open_backend("auto", Bundle.open(bundle), threads=1)
    backend.close()
    return backend.name


def test_auto_takes_the_best_that_serves_and_says_what_it_passed_over(
    trt: FakeTrt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "sonomime")
    assert chosen(toy_bundle) == "tensorrt" and not caplog.records
    not_built({"tensorrt"}, trt, monkeypatch)
    assert chosen(toy_bundle) == "rtx"
    assert [record.args[0] for record in caplog.records] == ["tensorrt"]
    caplog.clear()
    not_built({"tensorrt", "rtx"}, trt, monkeypatch)
    assert chosen(toy_bundle) == "ort-cpu"
    *passed, warning = caplog.records
    assert [record.args[0] for record in passed] == ["tensorrt", "rtx", "ort-cuda"]
    assert warning.levelname == "WARNING" and "sonomime build" in warning.getMessage()


def test_without_a_gpu_auto_imports_nothing_for_one_and_a_name_is_an_error(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sonomime")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.delitem(sys.modules, "tensorrt_rtx_bindings", raising=False)
    assert chosen(toy_bundle) == "ort-cpu"
    assert "tensorrt_rtx_bindings" not in sys.modules
    assert "cuda.bindings.runtime cannot be imported" in caplog.text
    for name, device in (("tensorrt", None), ("rtx", None), ("auto", 0)):
        with pytest.raises(BackendError) as caught:
            open_backend(name, Bundle.open(toy_bundle), device=device)
        assert "sonomime[gpu]" in caught.value.hint and caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("name", "device", "rest"),
    [("tensorrt", None, ""), ("rtx", None, ""), ("tensorrt", 1, " --device 1")],
)
def test_engines_that_are_not_built_name_the_command(
    trt: FakeTrt, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    device: int | None, rest: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sonomime.runtime.backends.tensorrt.load_engines", load_engines)
    trt.add_gpu()
    with pytest.raises(BackendError) as caught:
        open_backend(name, Bundle.open(toy_bundle), device=device)
    assert caught.value.hint.endswith(f"sonomime build {toy_bundle} --flavour {name}{rest}")


@pytest.mark.parametrize("name", ["auto", "tensorrt", "rtx"])
def test_frames_on_the_second_gpu_touch_no_other(trt: FakeTrt, toy_bundle: Path, name: str) -> None:
    second = trt.add_gpu()
    results = []
    for backend, device in (("ort-cpu", None), (name, 1)):
        with Animator.open(toy_bundle, backend, threads=1, device=device) as animator:
            animator.set_source(blob(64, 0.1, 0))
            results.append([animator.animate(blob(64, 0.1 * i, 0)) for i in range(3)])
            made_on = animator.session.backend.device
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other) and one.any()
    assert made_on.startswith("Fake GPU 1 (sm_81)")
    assert "launch" in second.calls and trt.device.calls == []
    assert trt.targets == [["SM81"] if name == "rtx" else ["Fake GPU 1 8.1"]]
    with Animator.open(toy_bundle, name, device=0), Animator.open(toy_bundle, name, device=1):
        assert trt.engines == trt.contexts == 2 * 5, "two GPUs share no engine"


def test_a_gpu_that_was_named_and_cannot_serve_is_an_error(
    trt: FakeTrt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(toy_bundle)
    for name in ("auto", "tensorrt", "rtx"):
        with pytest.raises(BackendError, match="GPU 1"):
            open_backend(name, bundle, device=1)
    not_built({"tensorrt", "rtx"}, trt, monkeypatch)
    with pytest.raises(BackendError) as caught:
        open_backend("auto", bundle, device=0)
    assert all(f"{name}: " in caught.value.message for name in ("tensorrt", "rtx", "ort-cuda"))
    with pytest.raises(ConfigError) as refused:
        open_backend("ort-cpu", bundle, device=0)
    assert refused.value.hint and refused.value.exit_code == 2
