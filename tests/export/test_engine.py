"""Engines: how they are built, kept and reported. TensorRT, the GPUs and the plugin are fakes, but
for the last tests: TensorRT-RTX builds without a GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace as Plain
from typing import Any

import onnx
import pytest
from fake_tensorrt import fake_module
from lively import SMALL, SMALL_LITE

from sonomime.cli import main
from sonomime.export import engine
from sonomime.export.engine import build_engines, choose_flavour
from sonomime.runtime.backends import tensorrt
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines import tensorrt_packages as flavours
from sonomime.runtime.engines.engine_file import read_engine_file
from sonomime.runtime.engines.engine_store import cache_root, is_trusted, load_engines
from sonomime.runtime.support.errors import BackendError, ConfigError

pytestmark = pytest.mark.usefixtures("cache")
STAGES = ["source", "keypoints", "transfer", "motion", "generator"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A TensorRT that builds nothing, in the place of TensorRT-RTX."""
    return fake_module(monkeypatch, "tensorrt_rtx_bindings")


@pytest.fixture
def toy(toy_bundle: Path) -> Bundle:
    return Bundle.open(toy_bundle)


def builds(fake: Any) -> int:
    count: int = fake.builder.build_serialized_network.call_count
    return count


def test_every_stage_is_built_once_and_kept_in_a_private_file(
    fake: Any, toy: Bundle, cache: Path
) -> None:
    first = build_engines(toy)
    assert not first.cached and first.path.parent == cache and builds(fake) == 5
    assert cache.stat().st_mode & 0o777 == 0o700 and first.path.stat().st_mode & 0o777 == 0o600
    # TensorRT keeps a pointer to the first logger, for good: one for building and running.
    assert {call.args[1] for call in fake.OnnxParser.mock_calls if call.args[1:]} == {
        tensorrt.engine_logger(fake)
    }
    found = read_engine_file(first.path)
    assert is_trusted(found.sha256) and found.manifest == first.manifest
    assert list(found.engines) == [stage.name for stage in found.manifest.stages] == STAGES
    assert found.manifest.bundle_digest == toy.digest
    assert found.manifest.version == "1.2.3" and found.manifest.targets == ("SM80", "SM120")
    for stage, built in zip(found.manifest.stages, toy.manifest.stages, strict=True):
        assert (stage.name, stage.onnx_sha256) == (built.name, built.sha256)
        assert stage.size == len(found.engines[stage.name]) and stage.seconds >= 0
        assert (stage.layers, stage.plugin_layers, stage.device_memory_bytes) == (3, 1, None)
    fake.Runtime.assert_not_called()  # there is no GPU
    second = build_engines(toy)
    assert second.path == first.path and second.cached and builds(fake) == 5
    assert second.manifest == first.manifest


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes() + b"!"),
        lambda path: path.parent.chmod(0o755),
        lambda path: [record.unlink() for record in (path.parent / "trusted").iterdir()],
        lambda path: path.symlink_to(path.rename(path.with_suffix(".moved"))),
        Path.unlink,
    ],
)
def test_what_the_cache_did_not_build_is_built_again(
    fake: Any, toy: Bundle, spoil: Callable[[Path], None]
) -> None:
    path = build_engines(toy).path
    engines = dict(read_engine_file(path).engines)
    spoil(path)
    again = build_engines(toy)
    assert not again.cached and builds(fake) == 10
    found = read_engine_file(path)
    assert is_trusted(found.sha256) and found.engines == engines
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert build_engines(toy).cached


def test_the_verb_builds_and_its_file_is_trusted_elsewhere(
    fake: Any, toy: Bundle, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    folder, out = str(toy.folder), tmp_path / "out" / "toy.engine"
    assert main(["build", folder, "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert "building rtx: no engines of full TensorRT" in said.err
    for word in (*STAGES, str(out), "2 float16, 1 float32", "SM80, SM120", "built"):
        assert word in said.out
    assert main(["build", folder, "--flavour", "rtx", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cached"] is True and report["plugin"] is None
    assert [stage["name"] for stage in report["stages"]] == STAGES
    again = build_engines(toy, "rtx", out)
    assert again.path == out and again.cached and read_engine_file(out).manifest == again.manifest
    # Elsewhere nobody knows of it, until its user says so by name.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(BackendError, match="no rtx engines of bundle"):
        load_engines(toy, "rtx", fake, ["SM80"])
    assert main(["engine", "trust", str(out)]) == 0
    assert "SM80, SM120" in capsys.readouterr().out
    found = load_engines(toy, "rtx", fake, ["SM80"])
    assert list(found) == STAGES and found == load_engines(toy, "rtx", fake, ["SM80", "SM120"])
    assert build_engines(toy).cached, "the copy is where building looks"
    assert main(["engine", "trust", str(toy.folder / "source.onnx")]) == 4
    assert "hint:" in capsys.readouterr().err


def test_errors_of_parser_and_builder_are_reported(fake: Any, toy: Bundle) -> None:
    fake.parser.parse.return_value, fake.parser.num_errors = False, 1
    error = fake.parser.get_error.return_value
    error.desc.return_value, error.node_operator.return_value = "no importer", "Foo"
    with pytest.raises(BackendError, match=r"source.*importer.*Foo") as caught:
        build_engines(toy)
    assert "tensorrt_rtx_bindings 1.2.3" in caught.value.hint
    assert not cache_root().exists()

    def refuse(network: Any, config: Any) -> None:
        tensorrt.engine_logger(fake).log(1, "no kernel for this layer")

    fake.parser.parse.return_value = True
    fake.builder.build_serialized_network.side_effect = refuse
    tensorrt.engine_logger(fake).log(1, "something of another engine")
    with pytest.raises(BackendError, match=r"source.*no kernel") as caught:
        build_engines(toy)
    assert "another engine" not in caught.value.message


def test_the_builder_is_told_what_the_recipe_says(fake: Any, toy: Bundle) -> None:
    """Other settings need another recipe, or old engines would go on being used."""
    config = fake.builder.create_builder_config.return_value
    usual = set(vars(config))
    assert build_engines(toy).manifest.recipe == flavours.RECIPE == "strongly typed, TF32 off"
    assert {call.args for call in fake.builder.create_network.mock_calls} == {(1 << 1,)}
    assert set(vars(config)) - usual == {"num_compute_capabilities"}, "what was set"
    called = {name for name, *_ in config.mock_calls}
    assert called == {"clear_flag", "set_compute_capability"}
    assert {call.args for call in config.clear_flag.mock_calls} == {(7,)}


def test_absent_package_names_the_cure(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for flavour, module, cure in (
        ("rtx", "tensorrt_rtx_bindings", "sonomime[rtx]"),
        ("tensorrt", "tensorrt", "--flavour rtx"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(BackendError, match=module) as caught:
            build_engines(toy, flavour)
        assert cure in caught.value.hint and caught.value.exit_code == 4


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Full TensorRT and two GPUs, all faked; `current` is the one that the thread works on."""
    module = fake_module(monkeypatch, "tensorrt")
    module.current, module.built_on = 0, []

    @contextmanager
    def current(index: int) -> Iterator[None]:
        before, module.current = module.current, index
        yield
        module.current = before

    def gpu(index: int, name: str, *capability: int) -> Any:
        return Plain(name=name, capability=capability, current=lambda: current(index))

    def open_device(index: int | None = None) -> Any:
        if not 0 <= (index or 0) < len(module.gpus):
            raise BackendError("CUDA finds no GPU", "check nvidia-smi")
        return module.gpus[index or 0]

    def build(network: Any, config: Any) -> bytes:
        module.built_on.append(module.current)
        return b"engine"

    def load(content: bytes) -> Any:
        return Plain(num_layers=10 + module.current, device_memory_size_v2=4096)

    module.gpus = [gpu(0, "NVIDIA Some", 9, 0), gpu(1, "NVIDIA Other", 8, 9)]
    module.builder.build_serialized_network.side_effect = build
    module.Runtime.return_value.deserialize_cuda_engine.side_effect = load
    monkeypatch.setattr(engine, "open_device", open_device)
    monkeypatch.setattr(flavours, "_loaded", set())
    return module


def test_it_builds_on_and_for_the_gpu_that_was_named(
    full: Any, toy: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = build_engines(toy, "tensorrt"), build_engines(toy, "tensorrt", device=1)
    assert first.manifest.targets == ("NVIDIA Some 9.0",) and first.plugin is None
    assert full.built_on == [0] * 5 + [1] * 5 and full.current == 0
    assert second.manifest.targets == ("NVIDIA Other 8.9",) and second.path != first.path
    loaded = {(stage.engine_layers, stage.device_memory_bytes) for stage in second.manifest.stages}
    assert loaded == {(11, 4096)}
    assert build_engines(toy, "tensorrt", device=1).cached
    with pytest.raises(BackendError):
        build_engines(toy, "tensorrt", device=2)
    with pytest.raises(ConfigError) as caught:
        build_engines(toy, "rtx", device=1)
    assert caught.value.hint
    assert main(["build", str(toy.folder), "--device", "1"]) == 0
    assert "NVIDIA Other 8.9" in capsys.readouterr().out


def test_the_flavour_is_chosen_by_what_is_there(full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, why = choose_flavour()
    assert name == "tensorrt" and "NVIDIA Some 9.0" in why
    full.gpus.clear()
    assert choose_flavour()[0] == "rtx" and choose_flavour(device=1)[0] == "tensorrt"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert choose_flavour()[0] == "rtx"


def test_the_plugin_is_registered_once_and_part_of_the_key(
    full: Any, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = build_engines(toy, "tensorrt")
    plugin = tmp_path / "plugin.so"
    monkeypatch.setenv("SONOMIME_PLUGIN", str(plugin))
    with pytest.raises(BackendError, match="SONOMIME_PLUGIN"):  # there is no such file
        build_engines(toy, "tensorrt")
    plugin.write_bytes(b"machine code")
    with_plugin = build_engines(toy, "tensorrt")
    assert with_plugin.plugin == plugin and with_plugin.manifest.plugin_sha256
    assert with_plugin.path != bare.path
    assert build_engines(toy, "tensorrt").cached
    registry = full.get_plugin_registry.return_value
    registry.load_library.assert_called_once_with(str(plugin))
    monkeypatch.setattr(flavours, "_loaded", set())
    registry.load_library.return_value = None
    with pytest.raises(BackendError, match=r"plugin\.so") as caught:
        build_engines(toy, "tensorrt")
    assert "headers" in caught.value.hint
    # TensorRT-RTX has no plugins, so it is not even looked at.
    assert flavours.plugin_digest("rtx") == ""


def test_the_plugin_is_found_where_cmake_puts_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repository / "runtime" / "lib" == flavours.LIBRARIES.resolve()
    assert "CURRENT_SOURCE_DIR}/runtime/lib" in (repository / "CMakeLists.txt").read_text()
    monkeypatch.setattr(flavours, "LIBRARIES", tmp_path)
    (tmp_path / "libsonomime_plugin.so").write_bytes(b"machine code")
    assert flavours.plugin_path() == tmp_path / "libsonomime_plugin.so"


FOMM = (*SMALL, "model.geometry=fomm_aligned", "model.channels=3")


@pytest.fixture
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")


# lite in fp32 is the default bundle; ours-p has the operators of fomm, ours-ptg those of ours-pt.
@pytest.mark.parametrize(
    ("preset", "precision", "sizes"),
    [
        ("", "fp32", ()),
        ("lite", "fp16", SMALL_LITE),
        ("ours-pt", "fp32", SMALL),
        ("ours-pt", "fp16", SMALL),
        ("fomm", "fp32", FOMM),
    ],
)
def test_rtx_builds_every_kind_of_model(
    trt: Any, preset: str, precision: str, sizes: tuple[str, ...], bundles: Callable[..., Path]
) -> None:
    bundle = Bundle.open(bundles(preset, precision, *sizes) if preset else None)
    made = build_engines(bundle)
    assert all(stage.size > 1000 and stage.layers > 0 for stage in made.manifest.stages)
    assert build_engines(bundle).cached
    loaded = load_engines(bundle, "rtx", trt, flavours.rtx_targets(trt))
    stages = {stage.name: stage.size for stage in made.manifest.stages}
    assert {name: len(engine) for name, engine in loaded.items()} == stages
    if precision == "fp16":
        generator = {kind.dtype: kind.layers for kind in made.manifest.stages[-1].precisions}
        assert generator["float16"] > 10
        if preset == "lite":  # whose motion is coordinates alone
            assert "float16" not in {kind.dtype for kind in made.manifest.stages[3].precisions}


def test_rtx_tells_of_an_operator_that_it_does_not_know(trt: Any, toy_bundle: Path) -> None:
    model, rtx = onnx.load(toy_bundle / "motion.onnx"), flavours.FLAVOURS["rtx"]
    model.graph.node[0].op_type, model.graph.node[0].domain = "Unheard", "of.nobody"
    model.opset_import.append(onnx.helper.make_opsetid("of.nobody", 1))
    with pytest.raises(BackendError, match=r"motion.*Unheard") as caught:
        engine.compile_stage(model.SerializeToString(), "motion", rtx, trt, ["SM80"])
    assert caught.value.hint
    with pytest.raises(BackendError):
        engine.compile_stage(b"no onnx", "motion", rtx, trt, ["SM80"])
