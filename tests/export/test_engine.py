"""Engines: built by TensorRT-RTX without a GPU, kept in a cache that trusts itself alone."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lively import SMALL

from sonomime.export import engine
from sonomime.export.engine import build_engines, cache_root, engine_key, is_trusted
from sonomime.runtime.bundle import Bundle, default_bundle_path
from sonomime.runtime.errors import BackendError, OutputError

Bundles = Callable[..., Path]
STAGES = ["source", "keypoints", "transfer", "motion", "generator"]
FOMM = ("model.geometry=fomm", "model.channels=3")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sonomime" / "engines"


class FakeParser:
    errors: ClassVar[list[str]] = []

    def __init__(self, network: Any, logger: Any) -> None:
        self.network = network

    def parse(self, onnx: bytes) -> bool:
        self.network["onnx"] = onnx
        return not self.errors

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: self.errors[index])


class FakeBuilder:
    refuses = False
    builds = 0

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> dict[str, Any]:
        assert flags == 1 << 1  # strongly typed
        return {}

    def create_builder_config(self) -> Any:
        capabilities: list[str] = []
        return types.SimpleNamespace(
            clear_flag=lambda flag: None,
            set_compute_capability=lambda value, index: capabilities.append(value),
        )

    def build_serialized_network(self, network: dict[str, Any], config: Any) -> bytes | None:
        FakeBuilder.builds += 1
        if self.refuses:
            self.logger.log(1, "no kernel for this layer")
            return None
        return b"engine of " + hashlib.sha256(network["onnx"]).digest()


class FakeLogger:
    Severity = types.SimpleNamespace(ERROR=1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A TensorRT that builds nothing, in the place of TensorRT-RTX."""
    module: Any = types.ModuleType("tensorrt_rtx_bindings")
    module.__version__ = "1.2.3"
    module.ILogger, module.Builder, module.OnnxParser = FakeLogger, FakeBuilder, FakeParser
    module.NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=1)
    module.BuilderFlag = types.SimpleNamespace(TF32=7)
    names = ["NONE", "CURRENT", "SM75", "SM80", "SM120"]
    module.ComputeCapability = types.SimpleNamespace(__members__={name: name for name in names})
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", module)
    monkeypatch.setattr(FakeParser, "errors", [])
    monkeypatch.setattr(FakeBuilder, "refuses", False)
    monkeypatch.setattr(FakeBuilder, "builds", 0)
    return module


@pytest.fixture
def toy(toy_bundle: Path) -> Bundle:
    return Bundle.open(toy_bundle)


def test_every_stage_is_built_once(fake: Any, toy: Bundle, cache: Path) -> None:
    first = build_engines(toy)
    assert [made.stage for made in first] == STAGES and not any(made.cached for made in first)
    assert all(made.path.parent.parent == cache for made in first)
    assert FakeBuilder.builds == 5
    second = build_engines(toy)
    assert [made.path for made in second] == [made.path for made in first]
    assert all(made.cached for made in second) and FakeBuilder.builds == 5


def test_cache_is_private_and_says_what_it_holds(fake: Any, toy: Bundle) -> None:
    made = build_engines(toy)[0]
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    facts = json.loads((made.path.parent / engine.SIDECAR).read_text())
    assert facts["sha256"] == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert facts["onnx_sha256"] == toy.stage("source").sha256
    assert facts["version"] == "1.2.3" and facts["targets"] == ["SM80", "SM120"]


def test_key_follows_onnx_version_and_targets(toy: Bundle) -> None:
    stage, other = toy.stage("source"), toy.stage("motion")
    keys = {
        engine_key(engine.engine_facts(*facts))
        for facts in (
            (stage, "rtx", "1", ["SM80"]),
            (other, "rtx", "1", ["SM80"]),
            (stage, "rtx", "2", ["SM80"]),
            (stage, "rtx", "1", ["SM80", "SM86"]),
            (stage, "tensorrt", "1", ["SM80"]),
        )
    }
    assert len(keys) == 5


def spoil_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def spoil_mode(path: Path) -> None:
    path.parent.chmod(0o755)


def spoil_sidecar(path: Path) -> None:
    (path.parent / engine.SIDECAR).write_text("[]")


def spoil_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_mode, spoil_sidecar, spoil_link, Path.unlink])
def test_what_the_cache_did_not_build_is_built_anew(
    fake: Any, toy: Bundle, spoil: Callable[[Path], None]
) -> None:
    path = build_engines(toy)[1].path
    content = path.read_bytes()
    spoil(path)
    assert not is_trusted(path.parent, path)
    again = build_engines(toy)
    assert [made.cached for made in again] == [True, False, True, True, True]
    assert is_trusted(path.parent, path) and path.read_bytes() == content


def test_engines_to_carry_elsewhere(fake: Any, toy: Bundle, tmp_path: Path) -> None:
    made = build_engines(toy, "rtx", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(f"{stage}.engine" for stage in STAGES)
    assert {one.path for one in made} == set((tmp_path / "out").iterdir())


def test_parsers_errors_are_told(fake: Any, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeParser, "errors", ["no importer for Foo"])
    with pytest.raises(BackendError, match=r"source.*parsed.*no importer for Foo") as caught:
        build_engines(toy)
    assert "tensorrt_rtx_bindings 1.2.3" in caught.value.hint
    assert not cache_root().exists()


def test_builders_errors_are_told(fake: Any, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBuilder, "refuses", True)
    with pytest.raises(BackendError, match=r"source.*built.*no kernel"):
        build_engines(toy)


def test_cache_that_cannot_be_written(
    fake: Any, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError):
        build_engines(toy)


@pytest.mark.parametrize("home", ["", "relative/cache"])
def test_cache_without_a_usable_xdg_home(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert cache_root() == Path.home() / ".cache" / "sonomime" / "engines"


@pytest.mark.parametrize(
    ("flavour", "module", "cure"),
    [("rtx", "tensorrt_rtx_bindings", "sonomime[rtx]"), ("tensorrt", "tensorrt", "--flavour rtx")],
)
def test_absent_package_names_the_cure(
    flavour: str, module: str, cure: str, toy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=module) as caught:
        build_engines(toy, flavour)
    assert cure in caught.value.hint and caught.value.exit_code == 4


def test_full_tensorrt_builds_for_the_gpu_that_is_there(
    fake: Any, toy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    gpu = types.SimpleNamespace(name=b"NVIDIA Some", major=9, minor=0)
    runtime: Any = types.ModuleType("cuda.bindings.runtime")
    runtime.cudaGetDeviceProperties = lambda device: (0, gpu)
    monkeypatch.setattr(
        engine.importlib, "import_module", {"tensorrt": fake, runtime.__name__: runtime}.__getitem__
    )
    made = build_engines(toy, "tensorrt")[0]
    facts = json.loads((made.path.parent / engine.SIDECAR).read_text())
    assert facts["targets"] == ["NVIDIA Some 9.0"] and facts["flavour"] == "tensorrt"
    runtime.cudaGetDeviceProperties = lambda device: (100, None)
    with pytest.raises(BackendError, match="no GPU"):
        build_engines(toy, "tensorrt")


def test_builds_without_torch_or_onnx(run_python: Any, toy_bundle: Path) -> None:
    code = """
import sys
from sonomime.export.engine import build_engines, load_flavour
from sonomime.runtime.bundle import Bundle
Bundle.open(sys.argv[1])
assert not {"torch", "onnx"} & set(sys.modules), "imported too much"
assert not any(name.startswith("sonomime.training") for name in sys.modules)
"""
    status, _, errors = run_python(code, str(toy_bundle))
    assert status == 0, errors


# ---- With the real thing, which needs no GPU to build


def built(folder: Path) -> list[str]:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    engines = build_engines(Bundle.open(folder))
    assert all(made.size > 1000 and made.size == os.path.getsize(made.path) for made in engines)
    again = build_engines(Bundle.open(folder))
    assert all(made.cached for made in again)
    return [made.stage for made in engines]


def test_rtx_builds_the_default_bundle() -> None:
    if not default_bundle_path().is_dir():
        pytest.skip("there is no default bundle in this checkout")
    assert built(default_bundle_path()) == STAGES


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rtx_builds_lite(precision: str, bundles: Bundles) -> None:
    assert built(bundles("lite", precision)) == STAGES


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("preset", "overrides"), [("ours-ptg", ()), ("fomm", FOMM)])
def test_rtx_builds_the_papers_sizes(
    preset: str, overrides: tuple[str, ...], precision: str, bundles: Bundles
) -> None:
    """At full size, random weights; the bundle's numbers were compared when it was made."""
    assert built(bundles(preset, precision, *overrides)) == STAGES


def test_rtx_tells_what_it_cannot_parse(toy_bundle: Path, tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    with pytest.raises(BackendError, match="parsed"):
        engine.compile_stage(b"no onnx", "motion", engine.FLAVOURS["rtx"], trt, ["SM80"])


def test_small_bundle_has_engines_of_its_own(bundles: Bundles) -> None:
    assert built(bundles("lite", "fp32", *SMALL)) == STAGES
