"""Engines of full TensorRT, for a GPU and with the plugin; all three are fakes here."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import FakeBuilder, fake_module

from sonomime.cli import main
from sonomime.export import engine
from sonomime.export.engine import build_engines, choose_flavour
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines import tensorrt_packages as flavours
from sonomime.runtime.engines.engine_store import load_engines
from sonomime.runtime.support.errors import BackendError, ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)


class Gpu:
    """What building asks of a device."""

    def __init__(self, module: Any, index: int, name: str, capability: tuple[int, int]) -> None:
        self.module, self.index, self.name, self.capability = module, index, name, capability

    @contextmanager
    def current(self) -> Iterator[None]:
        before, self.module.current = self.module.current, self.index
        yield
        self.module.current = before


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Full TensorRT and two GPUs, all faked; `current` is the one that the thread works on."""
    module = fake_module(monkeypatch, "tensorrt")
    module.current, module.built_on = 0, []
    module.gpus = [Gpu(module, 0, "NVIDIA Some", (9, 0)), Gpu(module, 1, "NVIDIA Other", (8, 9))]

    def open_device(index: int | None = None) -> Gpu:
        if not 0 <= (index or 0) < len(module.gpus):
            raise BackendError("CUDA finds no GPU", "check nvidia-smi")
        return module.gpus[index or 0]

    class Builder(FakeBuilder):
        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            module.built_on.append(module.current)
            return super().build_serialized_network(network, config)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            layers = 10 + module.current
            return types.SimpleNamespace(num_layers=layers, device_memory_size_v2=4096)

    module.Builder, module.Runtime = Builder, Runtime
    monkeypatch.setattr(engine, "open_device", open_device)
    monkeypatch.setattr(flavours, "_loaded", set())
    return module


@pytest.fixture
def toy(toy_bundle: Path) -> Bundle:
    return Bundle.open(toy_bundle)


def test_it_builds_on_and_for_the_gpu_that_was_named(
    full: Any, toy: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = build_engines(toy, "tensorrt"), build_engines(toy, "tensorrt", device=1)
    assert first.manifest.targets == ("NVIDIA Some 9.0",) and first.plugin is None
    assert full.built_on == [0] * 5 + [1] * 5 and full.current == 0
    assert second.manifest.targets == ("NVIDIA Other 8.9",) and second.path != first.path
    assert {stage.engine_layers for stage in second.manifest.stages} == {11}
    assert build_engines(toy, "tensorrt", device=1).cached
    with pytest.raises(BackendError):
        build_engines(toy, "tensorrt", device=2)
    with pytest.raises(ConfigError) as caught:
        build_engines(toy, "rtx", device=1)
    assert caught.value.hint
    assert choose_flavour(device=1)[0] == "tensorrt"
    assert main(["build", str(toy.folder), "--device", "1"]) == 0
    assert "NVIDIA Other 8.9" in capsys.readouterr().out


def test_the_plugin_is_registered_once_and_part_of_the_key(
    full: Any, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = build_engines(toy, "tensorrt")
    plugin = tmp_path / "plugin.so"
    plugin.write_bytes(b"machine code")
    monkeypatch.setenv("SONOMIME_PLUGIN", str(plugin))
    with_plugin = build_engines(toy, "tensorrt")
    assert with_plugin.plugin == plugin and with_plugin.manifest.plugin_sha256
    assert with_plugin.path != bare.path
    assert build_engines(toy, "tensorrt").cached
    assert full.registry.libraries == [str(plugin)]
    bare.path.unlink()
    # Other engines than those of the plugin that is there.
    plugin.write_bytes(b"other machine code")
    with pytest.raises(BackendError, match="plugin") as caught:
        load_engines(toy, "tensorrt", full, ["NVIDIA Some 9.0"])
    assert "sonomime build" in caught.value.hint


def test_a_plugin_that_does_not_load(
    full: Any, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "none.so"))
    with pytest.raises(BackendError, match="SONOMIME_PLUGIN"):
        build_engines(toy, "tensorrt")
    (tmp_path / "none.so").write_bytes(b"of another ABI")
    full.registry.loads = False
    with pytest.raises(BackendError, match="none") as caught:
        build_engines(toy, "tensorrt")
    assert "headers" in caught.value.hint
    # TensorRT-RTX has no plugins, so it is not even looked at.
    assert flavours.plugin_digest("rtx") == ""


def test_the_plugin_is_found_where_cmake_puts_it(
    full: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repository / "runtime" / "lib" == flavours.LIBRARIES.resolve()
    assert "CURRENT_SOURCE_DIR}/runtime/lib" in (repository / "CMakeLists.txt").read_text()
    monkeypatch.setattr(flavours, "LIBRARIES", tmp_path)
    assert flavours.plugin_path() is None
    (tmp_path / "libsonomime_plugin.so").write_bytes(b"machine code")
    assert flavours.plugin_path() == tmp_path / "libsonomime_plugin.so"


def test_the_flavour_is_chosen_by_what_is_there(full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, why = choose_flavour()
    assert name == "tensorrt" and "NVIDIA Some 9.0" in why
    full.gpus.clear()
    assert choose_flavour()[0] == "rtx"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert choose_flavour()[0] == "rtx"
