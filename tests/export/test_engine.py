"""Engines: built by TensorRT-RTX without a GPU, one file per bundle, reported."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import FakeBuilder, FakeNetwork, FakeParser, fake_module
from lively import SMALL

from sonomime.cli import main
from sonomime.export import engine
from sonomime.export.engine import build_engines, choose_flavour
from sonomime.runtime import flavours
from sonomime.runtime.backends import cuda
from sonomime.runtime.bundle import Bundle, default_bundle_path
from sonomime.runtime.engine_file import read_engine_file
from sonomime.runtime.engine_store import FLAVOURS, cache_root, is_trusted, load_engines
from sonomime.runtime.errors import BackendError, OutputError

Bundles = Callable[..., Path]
STAGES = ["source", "keypoints", "transfer", "motion", "generator"]
FOMM = ("model.geometry=fomm", "model.channels=3")


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
def full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Full TensorRT and a GPU, both faked."""
    module = fake_module(monkeypatch, "tensorrt")
    module.gpu = types.SimpleNamespace(name="NVIDIA Some", capability=(9, 0))

    def open_device() -> Any:
        if module.gpu is None:
            raise BackendError("CUDA finds no GPU", "check nvidia-smi")
        return module.gpu

    monkeypatch.setattr(cuda, "open_device", open_device)
    monkeypatch.setattr(flavours, "_loaded", set())
    return module


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
    for stage in found.manifest.stages:
        assert stage.onnx_sha256 == toy.stage(stage.name).sha256
        assert stage.size == len(found.engines[stage.name]) and stage.seconds >= 0


def test_the_report_counts_layers_by_precision(fake: Any, toy: Bundle) -> None:
    stage = build_engines(toy).manifest.stages[0]
    assert stage.layers == 3 and stage.plugin_layers == 1
    assert [(kind.dtype, kind.layers) for kind in stage.precisions] == [
        ("float16", 2),
        ("float32", 1),
    ]
    assert stage.engine_layers is None and stage.device_memory_bytes is None


def test_the_engine_is_inspected_where_it_loads(
    fake: Any, toy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = types.SimpleNamespace(num_layers=2, device_memory_size_v2=4096)
    monkeypatch.setattr(fake.Runtime, "engine", found)
    assert build_engines(toy).manifest.stages[0].engine_layers is None, "there is no GPU"
    monkeypatch.setattr(engine, "open_device", lambda: None)
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
    "spoil",
    [spoil_bytes, spoil_mode, spoil_records, spoil_record_mode, spoil_link, Path.unlink],
)
def test_what_the_cache_did_not_build_is_built_anew(
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
    with pytest.raises(BackendError, match="machine code"):
        load_engines(toy, "rtx", fake, ["SM80"], out)
    assert main(["engine", "trust", str(out)]) == 0
    assert list(load_engines(toy, "rtx", fake, ["SM80"], out)) == STAGES
    assert load_engines(toy, "rtx", fake, ["SM80"]) == load_engines(
        toy, "rtx", fake, ["SM80", "SM120"]
    )
    assert build_engines(toy).cached, "the copy is where building looks"


def test_parsers_errors_are_told(fake: Any, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeParser, "errors", ["no importer"])
    with pytest.raises(BackendError, match=r"source.*parsed.*importer.*operator Foo") as caught:
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


def test_full_tensorrt_builds_for_the_gpu_that_is_there(full: Any, toy: Bundle) -> None:
    made = build_engines(toy, "tensorrt").manifest
    assert made.targets == ("NVIDIA Some 9.0",) and made.flavour == "tensorrt"
    assert made.plugin_sha256 == "" and full.registry.libraries == []
    full.gpu = None
    with pytest.raises(BackendError, match="no GPU"):
        build_engines(toy, "tensorrt")


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
    # Other engines than those of the plugin that is there.
    plugin.write_bytes(b"other machine code")
    with pytest.raises(BackendError, match="plugin") as caught:
        load_engines(toy, "tensorrt", full, ["NVIDIA Some 9.0"], with_plugin.path)
    assert "sonomime build" in caught.value.hint


def test_a_plugin_that_does_not_load(
    full: Any, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "none.so"))
    with pytest.raises(BackendError, match="no file"):
        build_engines(toy, "tensorrt")
    (tmp_path / "none.so").write_bytes(b"of another ABI")
    full.registry.loads = False
    with pytest.raises(BackendError, match=r"cannot load the plugin .*none.so") as caught:
        build_engines(toy, "tensorrt")
    assert "headers" in caught.value.hint
    # TensorRT-RTX has no plugins, so it is not even looked at.
    assert flavours.plugin_digest("rtx") == ""


def test_the_flavour_is_chosen_by_what_is_there(full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_flavour() == (
        "tensorrt",
        "TensorRT 1.2.3 is installed, the GPU is NVIDIA Some 9.0",
    )
    full.gpu = None
    name, why = choose_flavour()
    assert name == "rtx" and "no GPU" in why
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    name, why = choose_flavour()
    assert name == "rtx" and "cannot be imported" in why


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
from sonomime.runtime.bundle import Bundle
Bundle.open(sys.argv[1])
assert not {"torch", "onnx"} & set(sys.modules), "imported too much"
assert not any(name.startswith("sonomime.training") for name in sys.modules)
"""
    status, _, errors = run_python(code, str(toy_bundle))
    assert status == 0, errors


# ---- With the real thing, which needs no GPU to build


def built(folder: Path) -> list[str]:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    bundle = Bundle.open(folder)
    made = build_engines(bundle)
    assert all(stage.size > 1000 and stage.layers > 0 for stage in made.manifest.stages)
    assert os.path.getsize(made.path) > made.manifest.size
    again = build_engines(bundle)
    assert again.cached and again.manifest == made.manifest
    loaded = load_engines(bundle, "rtx", trt, FLAVOURS["rtx"].targets(trt))
    assert {name: len(engine) for name, engine in loaded.items()} == {
        stage.name: stage.size for stage in made.manifest.stages
    }
    return list(loaded)


def test_rtx_builds_the_default_bundle() -> None:
    if not default_bundle_path().is_dir():
        pytest.skip("there is no default bundle in this checkout")
    assert built(default_bundle_path()) == STAGES


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rtx_builds_lite(precision: str, bundles: Bundles) -> None:
    assert built(bundles("lite", precision)) == STAGES


def test_a_half_bundle_computes_in_half(bundles: Bundles) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    made = build_engines(Bundle.open(bundles("lite", "fp16"))).manifest
    generator = {kind.dtype: kind.layers for kind in made.stages[-1].precisions}
    transfer = {kind.dtype for kind in made.stages[2].precisions}
    assert generator["float16"] > 10 and "float16" not in transfer


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
        engine.compile_stage(b"no onnx", "motion", FLAVOURS["rtx"], trt, ["SM80"])


def test_rtx_tells_of_an_operator_that_it_does_not_know(tmp_path: Path, toy_bundle: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    import onnx

    model = onnx.load(toy_bundle / "motion.onnx")
    model.graph.node[0].op_type, model.graph.node[0].domain = "Unheard", "of.nobody"
    model.opset_import.append(onnx.helper.make_opsetid("of.nobody", 1))
    with pytest.raises(BackendError, match=r"motion.*Unheard") as caught:
        engine.compile_stage(model.SerializeToString(), "motion", FLAVOURS["rtx"], trt, ["SM80"])
    assert "export again" in caught.value.hint


def test_small_bundle_has_engines_of_its_own(bundles: Bundles) -> None:
    assert built(bundles("lite", "fp32", *SMALL)) == STAGES


def test_layers_without_outputs_are_counted() -> None:
    network = FakeNetwork()
    network.layers.append(types.SimpleNamespace(type="LayerType.ASSERTION", num_outputs=0))
    assert engine._layers(network)[0] == 4
