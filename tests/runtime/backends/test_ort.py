"""The ONNX Runtime backend: shared buffers, and files that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import blob, copy_bundle, make_toy_bundle, replace_file

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.base import ALIGNMENT, allocate_all, default_threads
from sonomime.runtime.backends.onnx_file import check_onnx
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
    backend = open_backend("ort-cpu", Bundle.open(toy_bundle), threads=1)
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


def test_only_boundary_tensors_have_memory_on_the_host(toy_bundle: Path) -> None:
    backend = open_backend("ort-cpu", Bundle.open(toy_bundle), threads=1)
    for name in ("source_image", "driving_frame", "relative", "dt_seconds", "frame"):
        assert backend.view(name) is backend.view(name)
    for name in ("deformation", "state", "no_such_tensor"):
        with pytest.raises(BackendError, match="no boundary tensor") as caught:
            backend.view(name)
        assert "read() and write()" in caught.value.hint
    backend.close()


def test_buffers_are_aligned_and_shared_by_name(toy_bundle: Path) -> None:
    manifest = Bundle.open(toy_bundle).manifest
    buffers = allocate_all(manifest)
    tensors = manifest.tensors()
    assert buffers.keys() == tensors.keys()
    for name, buffer in buffers.items():
        assert buffer.ctypes.data % ALIGNMENT == 0
        assert buffer.shape == tensors[name].shape
        assert buffer.dtype == tensors[name].dtype


def test_cpu_is_another_name(toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, "cpu", threads=1) as animator:
        assert animator.session.backend.name == "ort-cpu"


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
        with pytest.raises(ConfigError, match="at least 1 and at most"):
            open_backend("auto", bundle, threads=threads)
    assert default_threads() >= 1


def test_a_backend_that_is_not_installed_names_the_cure(
    toy_bundle: Path, run_python: Callable[..., tuple[int, str, str]]
) -> None:
    code = """
import sys
sys.modules["onnxruntime"] = None
from sonomime.runtime import Animator, SonomimeError
try:
    Animator.open(sys.argv[1])
except SonomimeError as error:
    print(type(error).__name__, error.hint)
"""
    _, output, errors = run_python(code, str(toy_bundle))
    assert "BackendError" in output and "sonomime[cpu]" in output, errors


def test_external_data_is_refused(spoiled: Path) -> None:
    def move_out(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        onnx.external_data_helper.set_external_data(tensor, "weights.bin")
        tensor.ClearField("raw_data")

    change_stage(spoiled, "motion.onnx", move_out)
    (spoiled / "weights.bin").write_bytes(bytes(1 << 20))
    error = refusal(spoiled)
    assert "keeps data in another file" in error.message and error.hint


def external() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "w.bin")
    return tensor


def in_graph(*nodes: onnx.NodeProto, **fields: Any) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], **fields)


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(graph: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=in_graph())


def sparse() -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(4), "i")
    return helper.make_sparse_tensor(external(), indices, [8])


@pytest.mark.parametrize(
    "model",
    [
        helper.make_model(in_graph(initializer=[external()])),
        helper.make_model(in_graph(constant(external()))),
        helper.make_model(in_graph(branch(in_graph(constant(external()))))),
        helper.make_model(in_graph(sparse_initializer=[sparse()])),
        helper.make_model(
            in_graph(),
            functions=[helper.make_function("d", "F", [], ["c"], [constant(external())], [])],
        ),
    ],
    ids=["initializer", "constant", "branch", "sparse", "function"],
)
def test_external_data_is_found_wherever_it_hides(model: onnx.ModelProto) -> None:
    with pytest.raises(BundleError, match="another file"):
        check_onnx(model.SerializeToString(), "stage.onnx")


def test_a_key_that_protobuf_would_cut_hides_nothing() -> None:
    # The field 13 (external_data) of a tensor, with a bit set beyond the 32 that protobuf keeps.
    entry = b"\x0a\x08location"
    hidden = varint(13 << 3 | 2 | 1 << 34) + varint(len(entry)) + entry
    tensor = b"\x2a" + varint(len(hidden)) + hidden  # field 5 of the graph
    with pytest.raises(BundleError, match="damaged"):
        check_onnx(b"\x3a" + varint(len(tensor)) + tensor, "stage.onnx")


def varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def test_sound_files_pass(toy_bundle: Path) -> None:
    for file in toy_bundle.glob("*.onnx"):
        check_onnx(file.read_bytes(), file.name)


@pytest.mark.parametrize(
    "content", [b"", b"text\n", b"\x3a\xff\xff\x03", b"ORTM" * 8, b"\xff" * 30]
)
def test_what_is_no_onnx(spoiled: Path, content: bytes) -> None:
    replace_file(spoiled, "motion.onnx", content)
    assert "motion.onnx is not an ONNX file" in refusal(spoiled).message


@given(content=st.binary(max_size=200), cut=st.integers(0, 2000))
def test_damaged_protobufs_raise_a_bundle_error_only(
    toy_bundle: Path, content: bytes, cut: int
) -> None:
    sound = (toy_bundle / "motion.onnx").read_bytes()
    try:
        check_onnx(sound[:cut] + content + sound[cut + len(content) :], "stage.onnx")
    except BundleError as error:
        assert error.message.startswith("stage.onnx")


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
