"""The ONNX Runtime backend: what it refuses of names, files and stages. Its frames are compared
with those of GPUs in test_frames_faked.py."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import blob, copy_bundle, replace_file

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.base import default_threads
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import BackendError, BundleError, ConfigError


def test_unknown_backends_and_impossible_threads(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    with pytest.raises(ConfigError) as caught:
        open_backend("ort_cpu", bundle)
    assert caught.value.hint == "did you mean 'ort-cpu'?"
    for threads in (-1, 0, 100_000):
        with pytest.raises(ConfigError):
            open_backend("auto", bundle, threads=threads)
    assert default_threads() >= 1


def within_native_code() -> None:
    """As pybind11 does where Ctrl-C comes while its module is made."""
    raise ImportError("no init") from KeyboardInterrupt()


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", [interrupted, within_native_code, None])
def test_an_import_that_fails_names_the_cure_unless_it_was_interrupted(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[], None] | None
) -> None:
    def find_spec(name: str, path: Any, target: Any = None) -> None:
        if name == "onnxruntime" and how:
            how()

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    if how:
        monkeypatch.delitem(sys.modules, "onnxruntime")
        finder: Any = types.SimpleNamespace(find_spec=find_spec)
        monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    with pytest.raises(KeyboardInterrupt if how else BackendError) as caught:
        Animator.open(toy_bundle)
    assert how or "sonomime[cpu]" in caught.value.hint  # type: ignore[attr-defined]


def rename(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "deformed"
    for node in model.graph.node:
        node.output[:] = ["deformed" if name == "deformation" else name for name in node.output]


def open_up(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def unknown_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOp"


def shrink(model: onnx.ModelProto) -> None:
    """Give an output a length that only the data tells: 64 times the mean of a map of ones,
    less 1."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["whole" if name == "deformation" else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    nodes = [
        helper.make_node("ReduceMean", ["occlusion_map"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["whole_mean"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole_mean", "one"], ["length"]),
        helper.make_node("Add", ["length", "one"], ["length2"]),
        helper.make_node("Slice", ["whole", "one", "length2", "one"], ["deformation"]),
    ]
    graph.node.extend(nodes)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (rename, BundleError, r"motion\.onnx: output 'deformation' is absent in the file"),
        (open_up, BundleError, r"motion\.onnx: input 'source_small' is .*\['N', 1, 64, 64\]"),
        (unknown_op, BackendError, "cannot open stage 'motion'"),
        # Buffers are bound by address: nothing may be written past, or left stale, in silence.
        (shrink, BackendError, "stage 'motion' failed"),
    ],
)
def test_a_stage_that_is_not_what_the_manifest_says(
    toy_bundle: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], Any], kind: Any,
    words: str,
) -> None:  # fmt: skip
    spoiled = copy_bundle(toy_bundle, tmp_path / "spoiled")
    model = onnx.load(spoiled / "motion.onnx")
    change(model)
    replace_file(spoiled, "motion.onnx", model.SerializeToString())
    with pytest.raises(kind, match=words) as caught, Animator.open(spoiled, "cpu") as animator:
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0))
    assert change is not unknown_op or (caught.value.hint and caught.value.exit_code == 4)
