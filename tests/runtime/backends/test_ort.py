"""The ONNX Runtime backend: shared buffers, and files that it refuses."""

from __future__ import annotations

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


@pytest.fixture
def spoiled(toy_bundle: Path, tmp_path: Path) -> Path:
    return copy_bundle(toy_bundle, tmp_path / "spoiled")


def change_stage(folder: Path, file: str, change: Callable[[onnx.ModelProto], Any]) -> None:
    model = onnx.load(folder / file)
    change(model)
    replace_file(folder, file, model.SerializeToString())


def test_unknown_backends_and_impossible_threads(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    with pytest.raises(ConfigError) as caught:
        open_backend("ort_cpu", bundle)
    assert caught.value.hint == "did you mean 'ort-cpu'?"
    for threads in (-1, 0, 100_000):
        with pytest.raises(ConfigError):
            open_backend("auto", bundle, threads=threads)
    assert default_threads() >= 1


OPEN = """
import sys
{before}
from sonomime.runtime import Animator, SonomimeError
try:
    Animator.open(sys.argv[1])
except (SonomimeError, KeyboardInterrupt) as error:
    print(type(error).__name__, getattr(error, "hint", ""))
"""
INTERRUPTED = """
from importlib.abc import MetaPathFinder

class Interrupted(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            {how}

sys.meta_path.insert(0, Interrupted())
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ('sys.modules["onnxruntime"] = None', ["BackendError", "sonomime[cpu]"]),
        (INTERRUPTED.format(how="raise KeyboardInterrupt"), ["KeyboardInterrupt"]),
        # As pybind11 does where Ctrl-C comes while its module is made.
        (
            INTERRUPTED.format(how='raise ImportError("no init") from KeyboardInterrupt()'),
            ["KeyboardInterrupt"],
        ),
    ],
    ids=["not installed", "interrupted", "interrupted within native code"],
)
def test_an_import_that_fails_names_the_cure_unless_it_was_interrupted(
    toy_bundle: Path, run_python: Callable[..., tuple[int, str, str]], before: str,
    expected: list[str],
) -> None:  # fmt: skip
    _, output, errors = run_python(OPEN.format(before=before), str(toy_bundle))
    assert output.startswith(expected[0]), errors
    assert all(word in output for word in expected) and ("pip" in output) == (len(expected) > 1)


def rename(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "deformed"
    for node in model.graph.node:
        node.output[:] = ["deformed" if name == "deformation" else name for name in node.output]


def open_up(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename, "output 'deformation' is absent in the file"),
        (open_up, "input 'source_small' is tensor(float) ['N', 1, 64, 64]"),
    ],
)
def test_a_graph_with_other_shapes_or_names_than_the_manifest(
    spoiled: Path, change: Callable[[onnx.ModelProto], Any], words: str
) -> None:
    change_stage(spoiled, "motion.onnx", change)
    with pytest.raises(BundleError) as caught:
        open_backend("ort-cpu", Bundle.open(spoiled))
    assert f"motion.onnx: {words}" in caught.value.message


def test_an_output_that_turns_out_smaller_than_declared_is_an_error(spoiled: Path) -> None:
    """Buffers are bound by address: nothing may be written past, or left stale, in silence."""

    def shrink(model: onnx.ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            node.output[:] = ["whole" if n == "deformation" else n for n in node.output]
        one = numpy_helper.from_array(np.array([1], np.int64), "one")
        graph.initializer.append(one)
        graph.node.extend(
            [  # a length that only the data tells: 64 times the mean of a map of ones, less 1
                helper.make_node("ReduceMean", ["occlusion_map"], ["mean"], keepdims=0),
                helper.make_node("Cast", ["mean"], ["whole_mean"], to=TensorProto.INT64),
                helper.make_node("Reshape", ["whole_mean", "one"], ["length"]),
                helper.make_node("Slice", ["whole", "one", "length2", "one"], ["deformation"]),
            ]
        )
        graph.node.insert(
            len(graph.node) - 1, helper.make_node("Add", ["length", "one"], ["length2"])
        )

    change_stage(spoiled, "motion.onnx", shrink)
    with Animator.open(spoiled) as animator:
        animator.set_source(blob(64, 0, 0))
        with pytest.raises(BackendError, match="stage 'motion' failed"):
            animator.animate(blob(64, 0, 0))


def test_what_the_runtime_cannot_open_is_a_backend_error(spoiled: Path) -> None:
    def unknown_op(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOp"

    change_stage(spoiled, "motion.onnx", unknown_op)
    with pytest.raises(BackendError) as caught:
        open_backend("ort-cpu", Bundle.open(spoiled))
    assert "cannot open stage 'motion'" in caught.value.message
    assert caught.value.hint and caught.value.exit_code == 4
