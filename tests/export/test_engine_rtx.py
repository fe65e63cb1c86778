"""Engines by TensorRT-RTX, which needs no GPU to build them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from lively import SMALL

from sonomime.export import engine
from sonomime.export.engine import build_engines
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_store import load_engines
from sonomime.runtime.engines.tensorrt_packages import FLAVOURS, rtx_targets
from sonomime.runtime.support.errors import BackendError

Bundles = Callable[..., Path]
STAGES = ["source", "keypoints", "transfer", "motion", "generator"]
MATCHING = ["source", "observe", "transfer", "motion", "generator"]
FOMM = ("model.geometry=fomm", "model.channels=3")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)


def built(folder: Path) -> list[str]:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    bundle = Bundle.open(folder)
    made = build_engines(bundle)
    assert all(stage.size > 1000 and stage.layers > 0 for stage in made.manifest.stages)
    assert os.path.getsize(made.path) > made.manifest.size
    again = build_engines(bundle)
    assert again.cached and again.manifest == made.manifest
    loaded = load_engines(bundle, "rtx", trt, rtx_targets(trt))
    assert {name: len(engine) for name, engine in loaded.items()} == {
        stage.name: stage.size for stage in made.manifest.stages
    }
    return list(loaded)


def test_rtx_builds_the_default_bundle() -> None:
    bundle = Bundle.open()
    assert built(bundle.folder) == [stage.name for stage in bundle.manifest.stages]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rtx_builds_lite(precision: str, bundles: Bundles) -> None:
    assert built(bundles("lite", precision)) == MATCHING


def test_a_half_bundle_computes_in_half(bundles: Bundles) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    made = build_engines(Bundle.open(bundles("lite", "fp16"))).manifest
    generator = {kind.dtype: kind.layers for kind in made.stages[-1].precisions}
    motion = {kind.dtype for kind in made.stages[3].precisions}  # coordinates alone
    assert generator["float16"] > 10 and "float16" not in motion


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("preset", "overrides"), [("ours-ptg", ()), ("fomm", FOMM)])
def test_rtx_builds_the_papers_sizes(
    preset: str, overrides: tuple[str, ...], precision: str, bundles: Bundles
) -> None:
    """At full size, random weights; the bundle's numbers were compared when it was made."""
    assert built(bundles(preset, precision, *overrides)) == STAGES


def test_rtx_tells_of_an_operator_that_it_does_not_know(toy_bundle: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    import onnx

    model = onnx.load(toy_bundle / "motion.onnx")
    model.graph.node[0].op_type, model.graph.node[0].domain = "Unheard", "of.nobody"
    model.opset_import.append(onnx.helper.make_opsetid("of.nobody", 1))
    with pytest.raises(BackendError, match=r"motion.*Unheard") as caught:
        engine.compile_stage(model.SerializeToString(), "motion", FLAVOURS["rtx"], trt, ["SM80"])
    assert caught.value.hint
    with pytest.raises(BackendError):
        engine.compile_stage(b"no onnx", "motion", FLAVOURS["rtx"], trt, ["SM80"])


def test_small_bundle_has_engines_of_its_own(bundles: Bundles) -> None:
    assert built(bundles("ours-pt", "fp32", *SMALL)) == STAGES
