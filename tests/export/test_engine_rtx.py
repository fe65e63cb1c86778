"""Engines by TensorRT-RTX, which needs no GPU to build them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from lively import SMALL, SMALL_LITE

from sonomime.export import engine
from sonomime.export.engine import build_engines
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_store import load_engines
from sonomime.runtime.engines.tensorrt_packages import FLAVOURS, rtx_targets
from sonomime.runtime.support.errors import BackendError

pytestmark = pytest.mark.usefixtures("cache")
FOMM = (*SMALL, "model.geometry=fomm", "model.channels=3")


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
    assert os.path.getsize(made.path) > made.manifest.size
    again = build_engines(bundle)
    assert again.cached and again.manifest == made.manifest
    loaded = load_engines(bundle, "rtx", trt, rtx_targets(trt))
    sizes_by_stage = {stage.name: stage.size for stage in made.manifest.stages}
    assert {name: len(engine) for name, engine in loaded.items()} == sizes_by_stage
    assert list(loaded) == [stage.name for stage in bundle.manifest.stages]
    if precision == "fp16":
        generator = {kind.dtype: kind.layers for kind in made.manifest.stages[-1].precisions}
        assert generator["float16"] > 10
        if preset == "lite":  # whose motion is coordinates alone
            assert "float16" not in {kind.dtype for kind in made.manifest.stages[3].precisions}


def test_rtx_tells_of_an_operator_that_it_does_not_know(trt: Any, toy_bundle: Path) -> None:
    model = onnx.load(toy_bundle / "motion.onnx")
    model.graph.node[0].op_type, model.graph.node[0].domain = "Unheard", "of.nobody"
    model.opset_import.append(onnx.helper.make_opsetid("of.nobody", 1))
    with pytest.raises(BackendError, match=r"motion.*Unheard") as caught:
        engine.compile_stage(model.SerializeToString(), "motion", FLAVOURS["rtx"], trt, ["SM80"])
    assert caught.value.hint
    with pytest.raises(BackendError):
        engine.compile_stage(b"no onnx", "motion", FLAVOURS["rtx"], trt, ["SM80"])
