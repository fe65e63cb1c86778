"""The ONNX Runtime backend: shared buffers, and files that it refuses."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import blob, copy_bundle, make_toy_bundle, replace_file

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.base import ALIGNMENT, allocate_all, default_threads
from sonomime.runtime.backends.ort import session_options
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import BackendError, BundleError, ConfigError


@pytest.fixture
def spoiled(toy_bundle: Path, tmp_path: Path) -> Path:
    return copy_bundle(toy_bundle, tmp_path / "spoiled")


def refusal(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        open_backend("ort-cpu", Bundle.open(folder))
    return caught.value


def change_stage(folder: Path, file: str, change: Callable[[onnx.ModelProto], Any]) -> None:
    model = onnx.load(folder / file)
    change(model)
    replace_file(folder, file, model.SerializeToString())


def test_a_stage_writes_into_the_buffer_that_the_next_one_reads(toy_bundle: Path) -> None:
    backend = open_backend("auto", Bundle.open(toy_bundle), threads=1)
    backend.view("source_image")[0, 0] = blob(64, 0, 0)
    backend.view("driving_frame")[0, 0] = blob(64, 0.5, 0)
    frame = backend.view("frame")
    for stage in ("source", "keypoints", "transfer", "motion", "generator"):
        backend.run(stage)
    for name in ("driving_kp_value", "deformation", "frame"):
        assert backend.read(name).any(), name
    assert backend.read("driving_kp_value")[0, :, 0].mean() == pytest.approx(0.5, abs=0.01)
    assert frame is backend.view("frame")
    assert np.abs(frame[0, 0].astype(int) - blob(64, 0.5, 0)).max() <= 3
    backend.close()


def test_a_frame_is_all_per_frame_stages_and_the_states_carried_on(toy_bundle: Path) -> None:
    backend = open_backend("cpu", Bundle.open(toy_bundle), threads=1)
    assert backend.name == "ort-cpu"
    assert list(backend.seconds) == ["keypoints", "transfer", "motion", "generator"]
    assert not any(backend.seconds.values())
    backend.write("source_image", blob(64, 0, 0))
    backend.run("source")
    backend.view("driving_frame")[0, 0] = blob(64, 0.5, 0)
    backend.run_frame()
    assert np.abs(backend.view("frame")[0, 0].astype(int) - blob(64, 0.5, 0)).max() <= 3
    assert backend.read("state")[0, 0] == 1
    assert np.array_equal(backend.read("state"), backend.read("next_state"))
    assert all(backend.seconds.values())
    backend.write("state", 0)
    assert not backend.read("state").any() and backend.read("next_state").any()
    backend.copy("next_state", "state")
    kept = backend.read("state")
    kept[...] = -1
    assert backend.read("state").any() and not (backend.read("state") == -1).any()
    backend.close()


def test_buffers_are_aligned_and_boundary_tensors_alone_are_viewed(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    tensors, buffers = bundle.manifest.tensors(), allocate_all(bundle.manifest)
    assert buffers.keys() == tensors.keys()
    for name, buffer in buffers.items():
        assert buffer.ctypes.data % ALIGNMENT == 0
        assert (buffer.shape, buffer.dtype) == (tensors[name].shape, tensors[name].dtype)
    backend = open_backend("ort-cpu", bundle, threads=1)
    for name in ("source_image", "driving_frame", "relative", "dt_seconds", "frame"):
        assert backend.view(name) is backend.view(name)
    for name in ("deformation", "state", "no_such_tensor"):
        with pytest.raises(BackendError, match=name):
            backend.view(name)
    backend.close()


def test_workers_sleep_rather_than_spin() -> None:
    options = session_options(2)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 2


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_the_stage_at_hand(
    toy_bundle: Path, run_python: Callable[..., tuple[int, str, str]], number: int, code: int
) -> None:
    program = """
import os, sys, threading, time
import numpy as np
from sonomime.runtime import Animator
from sonomime.runtime.support.process import Terminated, terminable

animator = Animator.open(sys.argv[1], "cpu", threads=1)
animator.set_source(np.zeros((64, 64), np.uint8))
threading.Timer(0.2, os.kill, (os.getpid(), int(sys.argv[2]))).start()
try:
    with terminable():
        end = time.monotonic() + 60
        while time.monotonic() < end:
            animator.session.backend.run_frame()
except KeyboardInterrupt as error:
    sys.exit(error.exit_code if isinstance(error, Terminated) else 130)
"""
    status, _, errors = run_python(program, str(toy_bundle), str(int(number)))
    assert status == code, errors


def test_a_graph_with_other_shapes_or_names_than_the_manifest(
    spoiled: Path, tmp_path: Path
) -> None:
    sound = (spoiled / "motion.onnx").read_bytes()
    larger = make_toy_bundle(tmp_path / "larger", keypoints=4)
    replace_file(spoiled, "motion.onnx", (larger / "motion.onnx").read_bytes())
    message = refusal(spoiled).message
    assert "input 'source_kp_value' is tensor(float) [1, 4, 2] in the file" in message
    assert "tensor(float) [1, 3, 2] in the manifest" in message
    replace_file(spoiled, "motion.onnx", sound)

    def rename(model: onnx.ModelProto) -> None:
        model.graph.output[0].name = "deformed"
        for node in model.graph.node:
            node.output[:] = ["deformed" if name == "deformation" else name for name in node.output]

    change_stage(spoiled, "motion.onnx", rename)
    error = refusal(spoiled)
    assert "motion.onnx: output 'deformation' is absent in the file" in error.message


def test_a_graph_with_an_open_dimension_is_refused(spoiled: Path) -> None:
    def open_up(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"

    change_stage(spoiled, "motion.onnx", open_up)
    assert "input 'source_small' is tensor(float) ['N', 1, 64, 64]" in refusal(spoiled).message


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
