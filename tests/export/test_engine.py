"""Engines: how they are built, kept and reported. A fake TensorRT stands in and builds nothing."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import FakeBuilder, FakeNetwork, FakeParser, fake_module

from sonomime.cli import main
from sonomime.export import engine
from sonomime.export.engine import build_engines
from sonomime.runtime.backends import tensorrt
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines import tensorrt_packages as flavours
from sonomime.runtime.engines.engine_file import read_engine_file
from sonomime.runtime.engines.engine_store import cache_root, is_trusted, load_engines
from sonomime.runtime.support.errors import BackendError, OutputError

STAGES = ["source", "keypoints", "transfer", "motion", "generator"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)
    return tmp_path / "cache" / "sonomime" / "engines"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A TensorRT that builds nothing, in the place of TensorRT-RTX."""
    return fake_module(monkeypatch, "tensorrt_rtx_bindings")


@pytest.fixture
def toy(toy_bundle: Path) -> Bundle:
    return Bundle.open(toy_bundle)


def test_every_stage_is_built_once(fake: Any, toy: Bundle, cache: Path) -> None:
    first = build_engines(toy)
    assert [made.name for made in first.manifest.stages] == STAGES and not first.cached
    assert first.path.parent == cache and FakeBuilder.builds == 5
    second = build_engines(toy)
    assert second.path == first.path and second.cached and FakeBuilder.builds == 5
    assert second.manifest == first.manifest


def test_the_file_is_private_trusted_and_says_what_it_holds(fake: Any, toy: Bundle) -> None:
    made = build_engines(toy)
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    assert made.path.stat().st_mode & 0o777 == 0o600
    found = read_engine_file(made.path)
    assert is_trusted(found.sha256) and found.manifest == made.manifest
    assert list(found.engines) == STAGES
    assert found.manifest.bundle_digest == toy.digest
    assert found.manifest.version == "1.2.3" and found.manifest.targets == ("SM80", "SM120")
    for stage, built in zip(found.manifest.stages, toy.manifest.stages, strict=True):
        assert (stage.name, stage.onnx_sha256) == (built.name, built.sha256)
        assert stage.size == len(found.engines[stage.name]) and stage.seconds >= 0


def test_the_report_counts_layers_by_precision(
    fake: Any, toy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = types.SimpleNamespace(num_layers=2, device_memory_size_v2=4096)
    monkeypatch.setattr(fake.Runtime, "engine", found)
    stage = build_engines(toy).manifest.stages[0]
    assert stage.layers == 3 and stage.plugin_layers == 1
    counts = {kind.dtype: kind.layers for kind in stage.precisions}
    assert counts == {"float16": 2, "float32": 1}
    assert stage.engine_layers is None and stage.device_memory_bytes is None, "there is no GPU"
    monkeypatch.setattr(engine, "open_device", lambda device: None)
    build_engines(toy).path.unlink()
    stage = build_engines(toy).manifest.stages[0]
    assert (stage.engine_layers, stage.device_memory_bytes) == (2, 4096)


def spoil_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def spoil_mode(path: Path) -> None:
    path.parent.chmod(0o755)


def spoil_records(path: Path) -> None:
    for record in (path.parent / "trusted").iterdir():
        record.write_text("[]")


def spoil_record_mode(path: Path) -> None:
    for record in (path.parent / "trusted").iterdir():
        record.chmod(0o644)


def spoil_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize(
    "spoil", [spoil_bytes, spoil_mode, spoil_records, spoil_record_mode, spoil_link, Path.unlink]
)
def test_what_the_cache_did_not_build_is_built_again(
    fake: Any, toy: Bundle, spoil: Callable[[Path], None]
) -> None:
    path = build_engines(toy).path
    engines = dict(read_engine_file(path).engines)
    spoil(path)
    again = build_engines(toy)
    assert not again.cached and FakeBuilder.builds == 10
    found = read_engine_file(path)
    assert is_trusted(found.sha256) and found.engines == engines
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert build_engines(toy).cached


def test_engines_to_carry_elsewhere(
    fake: Any, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "toy.engine"
    made = build_engines(toy, "rtx", out)
    assert made.path == out and not made.cached
    assert read_engine_file(out).manifest == made.manifest
    assert build_engines(toy, "rtx", out).cached
    # Elsewhere nobody knows of it, until its user says so by name.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(BackendError, match="no rtx engines of bundle"):
        load_engines(toy, "rtx", fake, ["SM80"])
    assert main(["engine", "trust", str(out)]) == 0
    found = load_engines(toy, "rtx", fake, ["SM80"])
    assert list(found) == STAGES and found == load_engines(toy, "rtx", fake, ["SM80", "SM120"])
    assert build_engines(toy).cached, "the copy is where building looks"


def test_errors_of_parser_and_builder_are_reported(
    fake: Any, toy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeParser, "errors", ["no importer"])
    with pytest.raises(BackendError, match=r"source.*importer.*Foo") as caught:
        build_engines(toy)
    assert "tensorrt_rtx_bindings 1.2.3" in caught.value.hint
    assert not cache_root().exists()
    monkeypatch.setattr(FakeParser, "errors", [])
    monkeypatch.setattr(FakeBuilder, "refuses", True)
    tensorrt.engine_logger(fake).log(1, "something of another engine")
    with pytest.raises(BackendError, match=r"source.*no kernel") as caught:
        build_engines(toy)
    assert "another engine" not in caught.value.message


def test_the_builder_is_told_what_the_recipe_says(
    fake: Any, toy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other settings need another recipe, or old engines would go on being used."""
    told: set[str] = set()

    class Config:
        def clear_flag(self, flag: int) -> None:
            told.add(f"{ {7: 'TF32'}[flag] } off")

        def set_compute_capability(self, target: str, index: int) -> None:
            pass

        def __setattr__(self, name: str, value: Any) -> None:
            if name != "num_compute_capabilities":
                told.add(f"{name} {value}")

        def __getattr__(self, name: str) -> Any:
            return lambda *given: told.add(f"{name} {given}")

    monkeypatch.setattr(FakeBuilder, "create_builder_config", lambda self: Config())
    made = build_engines(toy).manifest
    # That its networks are strongly typed is looked at when they are made.
    assert made.recipe == flavours.RECIPE == ", ".join(["strongly typed", *told])


def test_one_logger_for_building_and_running(fake: Any, toy: Bundle) -> None:
    """TensorRT keeps a pointer to the first, for good."""
    loggers = set()

    class Parser(FakeParser):
        def __init__(self, network: FakeNetwork, logger: Any) -> None:
            super().__init__(network, logger)
            loggers.add(logger)

    fake.OnnxParser = Parser
    build_engines(toy)
    assert loggers == {tensorrt.engine_logger(fake)}


def test_cache_that_cannot_be_written(
    fake: Any, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError):
        build_engines(toy)


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


def test_the_verb_reports(
    fake: Any,
    toy_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    out = tmp_path / "toy.engine"
    assert main(["build", str(toy_bundle), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert "building rtx: no engines of full TensorRT" in said.err
    for word in (*STAGES, str(out), "2 float16, 1 float32", "SM80, SM120", "built"):
        assert word in said.out
    assert main(["build", str(toy_bundle), "--flavour", "rtx", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cached"] is True and report["plugin"] is None
    assert [stage["name"] for stage in report["stages"]] == STAGES
    assert main(["engine", "trust", str(out)]) == 0
    assert "SM80, SM120" in capsys.readouterr().out
    assert main(["engine", "trust", str(toy_bundle / "source.onnx")]) == 4
    assert "hint:" in capsys.readouterr().err


def test_builds_without_torch_or_onnx(run_python: Any, toy_bundle: Path) -> None:
    code = """
import sys
from sonomime.export.engine import build_engines, load_flavour
from sonomime.runtime.bundle.bundle import Bundle
Bundle.open(sys.argv[1])
assert not {"torch", "onnx"} & set(sys.modules), "imported too much"
assert not any(name.startswith("sonomime.training") for name in sys.modules)
"""
    status, _, errors = run_python(code, str(toy_bundle))
    assert status == 0, errors
