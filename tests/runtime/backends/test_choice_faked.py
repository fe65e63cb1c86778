"""Which backend is taken, by `auto` and by name, where TensorRT and GPUs are played by the host."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from fake_engines import Machine

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.base import default_threads
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_store import load_engines
from sonomime.runtime.support.errors import BackendError, ConfigError


def chosen(bundle: Path, device: int | None = None) -> str:
    backend = open_backend("auto", Bundle.open(bundle), threads=1, device=device)
    backend.close()
    return backend.name


def without(machine: Machine, *flavours: str) -> None:
    """Let engines of these flavours not be there, nor an ONNX Runtime with CUDA."""
    machine.trt.not_built, machine.wrong = set(flavours), {"providers": ""}


def test_auto_takes_the_best_that_serves_and_says_what_it_passed_over(
    machine: Machine, toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sonomime")
    assert chosen(toy_bundle) == "tensorrt" and not caplog.records
    without(machine, "tensorrt")
    assert chosen(toy_bundle) == "rtx"
    assert [record.args[0] for record in caplog.records] == ["tensorrt"]
    caplog.clear()
    without(machine, "tensorrt", "rtx")
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


def test_engines_that_are_not_built_name_the_command(
    machine: Machine, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sonomime.runtime.backends.tensorrt.load_engines", load_engines)
    machine.cuda.count = 2
    for name, device, rest in (("rtx", None, ""), ("tensorrt", 1, " --device 1")):
        with pytest.raises(BackendError) as caught:
            open_backend(name, Bundle.open(toy_bundle), device=device)
        assert caught.value.hint.endswith(f"sonomime build {toy_bundle} --flavour {name}{rest}")


def test_a_gpu_that_was_named_serves_or_is_an_error(machine: Machine, toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    for name in ("auto", "tensorrt", "rtx", "ort-cuda"):
        with pytest.raises(BackendError, match="GPU 1"):
            open_backend(name, bundle, device=1)
    machine.cuda.count = 2
    assert chosen(toy_bundle, 1) == "tensorrt" and machine.trt.targets == [["Fake GPU 1 8.8"]]
    without(machine, "tensorrt", "rtx")
    with pytest.raises(BackendError) as caught:
        open_backend("auto", bundle, device=1)
    assert all(f"{name}: " in caught.value.message for name in ("tensorrt", "rtx", "ort-cuda"))
    with pytest.raises(ConfigError) as refused:
        open_backend("ort-cpu", bundle, device=0)
    assert refused.value.hint and refused.value.exit_code == 2


def test_unknown_backends_and_impossible_threads(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    with pytest.raises(ConfigError) as caught:
        open_backend("ort_cpu", bundle)
    assert caught.value.hint == "did you mean 'ort-cpu'?"
    for threads in (-1, 0, 100_000):
        with pytest.raises(ConfigError):
            open_backend("auto", bundle, threads=threads)
    assert default_threads() >= 1


# As pybind11 raises where Ctrl-C comes while its module is made.
WITHIN = ImportError("no init")
WITHIN.__cause__ = KeyboardInterrupt()


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), WITHIN, None])
def test_an_import_that_fails_names_the_cure_unless_it_was_interrupted(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException | None
) -> None:
    def find_spec(name: str, path: Any, target: Any = None) -> None:
        if name == "onnxruntime" and raised:
            raise raised

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    if raised:
        monkeypatch.delitem(sys.modules, "onnxruntime")
        finder: Any = types.SimpleNamespace(find_spec=find_spec)
        monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    with pytest.raises(KeyboardInterrupt if raised else BackendError) as caught:
        Animator.open(toy_bundle)
    assert raised or "sonomime[cpu]" in caught.value.hint  # type: ignore[attr-defined]
