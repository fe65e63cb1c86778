"""Which backend is taken: `auto`, and names that were asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from fake_engines import FakeTrt
from toy_bundle import blob

from sonomime.runtime import Animator
from sonomime.runtime.backends import BACKENDS, open_backend, ort_cuda
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_store import load_engines
from sonomime.runtime.support.errors import BackendError, ConfigError


def not_built(flavours: set[str], fake: FakeTrt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines of these flavours not be there."""

    def load(bundle: Bundle, flavour: str, *arguments: object) -> dict[str, bytes]:
        if flavour in flavours:
            raise BackendError(f"no {flavour} engines are built", "run sonomime build")
        return fake.load_engines(bundle, flavour, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("sonomime.runtime.backends.tensorrt.load_engines", load)


def chosen(bundle: Path) -> str:
    backend = open_backend("auto", Bundle.open(bundle), threads=1)
    backend.close()
    return backend.name


def test_the_names() -> None:
    assert BACKENDS == ("auto", "ort-cpu", "ort-cuda", "tensorrt", "rtx")


def test_auto_takes_the_best_that_serves_and_says_what_it_passed_over(
    trt: FakeTrt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "sonomime")
    assert chosen(toy_bundle) == "tensorrt" and not caplog.records
    not_built({"tensorrt"}, trt, monkeypatch)
    assert chosen(toy_bundle) == "rtx"
    assert "auto passes over tensorrt: no tensorrt engines are built" in caplog.text
    caplog.clear()
    not_built({"tensorrt", "rtx"}, trt, monkeypatch)
    monkeypatch.setattr(ort_cuda.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert chosen(toy_bundle) == "ort-cpu"
    said = [record.getMessage().split(":")[0] for record in caplog.records]
    passed = [f"auto passes over {name}" for name in ("tensorrt", "rtx", "ort-cuda")]
    assert said == [*passed, "frames run on the CPU, the GPU is not used"]
    assert caplog.records[-1].levelname == "WARNING"


def test_auto_without_a_gpu_imports_nothing_for_one(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sonomime")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.delitem(sys.modules, "tensorrt_rtx_bindings", raising=False)
    assert chosen(toy_bundle) == "ort-cpu"
    assert "tensorrt_rtx_bindings" not in sys.modules
    assert "auto passes over tensorrt, rtx, ort-cuda: cuda-bindings cannot be" in caplog.text


@pytest.mark.parametrize("name", ["tensorrt", "rtx"])
def test_what_was_asked_for_and_cannot_serve_is_an_error(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(BackendError, match="cuda-bindings cannot be imported") as caught:
        open_backend(name, Bundle.open(toy_bundle))
    assert "sonomime[gpu]" in caught.value.hint


def test_engines_that_are_not_built_name_the_command(
    trt: FakeTrt, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sonomime.runtime.backends.tensorrt.load_engines", load_engines)
    for name in ("tensorrt", "rtx"):
        with pytest.raises(BackendError) as caught:
            open_backend(name, Bundle.open(toy_bundle))
        assert caught.value.hint.endswith(f"sonomime build {toy_bundle} --flavour {name}")
    trt.add_gpu()
    with pytest.raises(BackendError) as caught:
        open_backend("tensorrt", Bundle.open(toy_bundle), device=1)
    assert caught.value.hint.endswith("--flavour tensorrt --device 1")


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


def test_two_gpus_share_no_engine(trt: FakeTrt, toy_bundle: Path) -> None:
    trt.add_gpu()
    opened = [Animator.open(toy_bundle, "tensorrt", device=device) for device in (None, 0, 1)]
    assert trt.engines == 2 * 5 and trt.contexts == 3 * 5
    frames = []
    for animator in opened:
        animator.set_source(blob(64, 0.1, 0))
        frames.append([animator.animate(blob(64, 0.1 * i, 0)) for i in range(3)])
    for animator in opened:
        animator.close()
    assert np.array_equal(frames[0], frames[1]) and np.array_equal(frames[0], frames[2])


def test_a_gpu_that_was_named_and_cannot_serve_is_an_error(
    trt: FakeTrt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(toy_bundle)
    for name in ("auto", "tensorrt", "rtx"):
        with pytest.raises(BackendError, match="GPU 1"):
            open_backend(name, bundle, device=1)
    not_built({"tensorrt", "rtx"}, trt, monkeypatch)
    monkeypatch.setattr(ort_cuda.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError) as caught:
        open_backend("auto", bundle, device=0)
    for name in ("tensorrt", "rtx", "ort-cuda"):
        assert f"{name}: " in caught.value.message
    with pytest.raises(ConfigError) as refused:
        open_backend("ort-cpu", bundle, device=0)
    assert refused.value.hint and refused.value.exit_code == 2


def test_auto_without_a_gpu_that_was_named(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(BackendError):
        open_backend("auto", Bundle.open(toy_bundle), device=0)
