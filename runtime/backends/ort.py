"""ONNX Runtime on the CPU: one session per stage, all bound to the same buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import StageFile
from ..support.errors import BackendError, BundleError
from ..support.timing import Spans
from .base import Views, allocate_all, boundary, difference
from .onnx_file import read_stage

_TYPES = {"uint8": "tensor(uint8)", "float16": "tensor(float16)", "float32": "tensor(float)"}


class OrtCpuBackend:
    """See `Backend`. Buffers are numpy arrays, which the sessions read and write by IO binding."""

    name = "ort-cpu"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Open a session per stage; raises as `open_backend`."""
        # No warnings about missing GPUs; errors come as exceptions.
        ort.set_default_logger_severity(3)
        self.device = f"CPU, ONNX Runtime {ort.__version__}"
        self._threads = threads
        self._buffers = allocate_all(bundle.manifest)
        self._views = Views((name, self._buffers[name]) for name in boundary(bundle.manifest))
        stages = bundle.manifest.stages
        self._per_frame = [stage.name for stage in stages if stage.per_frame]
        self._recurrent = [(pair.from_, pair.to) for pair in bundle.manifest.recurrent]
        self._spans = Spans(dict.fromkeys(self._per_frame, 0.0))
        # Opening holds the interpreter's lock only now and then, so two cores nearly halve it.
        with ThreadPoolExecutor(min(threads, len(stages))) as pool:
            self._runs = dict(pool.map(lambda stage: self._open(bundle, stage), stages))

    def _open(self, bundle: Bundle, stage: StageFile) -> tuple[str, Any]:
        content = read_stage(bundle, stage)
        options = session_options(self._threads)
        try:
            session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = first_line(error)
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot open stage {stage.name!r}: {reason}",
                "a newer onnxruntime may read it; else export the bundle again",
            ) from error
        place = "cpu", 0, lambda tensor: self._buffers[tensor].ctypes.data
        return stage.name, (session, bind(stage, session, *place))

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._spans

    def view(self, tensor: str) -> NDArray[Any]:
        return self._views[tensor]

    def read(self, tensor: str) -> NDArray[Any]:
        return self._buffers[tensor].copy()

    def write(self, tensor: str, value: ArrayLike) -> None:
        self._buffers[tensor][...] = value

    def copy(self, source: str, target: str) -> None:
        np.copyto(self._buffers[target], self._buffers[source])

    def run(self, stage: str) -> None:
        session, binding = self._runs[stage]
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # pybind's classes have no other common base
            reason = first_line(error)
            raise BackendError(f"stage {stage!r} failed in ONNX Runtime: {reason}") from error

    def run_frame(self) -> None:
        self._spans.start()
        for stage in self._per_frame:
            self.run(stage)
            self._spans.lap(stage)
        for made, state in self._recurrent:
            self.copy(made, state)

    def close(self) -> None:
        # Sessions before buffers: they hold bare pointers into them.
        self._runs.clear()
        self._views.clear()
        self._buffers.clear()


def bind(
    stage: StageFile, session: Any, kind: str, device: int, address: Callable[[str], int]
) -> Any:
    """Bind all of a stage's tensors to the memory at their addresses, which are bare: a file whose
    tensors are not exactly the manifest's is a BundleError."""
    binding = session.io_binding()
    for what, tensors, nodes, bind_tensor in (
        ("input", stage.inputs, session.get_inputs(), binding.bind_input),
        ("output", stage.outputs, session.get_outputs(), binding.bind_output),
    ):
        said = {t.name: f"{_TYPES[t.dtype]} {list(t.shape)}" for t in tensors}
        found = {node.name: f"{node.type} {list(node.shape)}" for node in nodes}
        if differs := difference(said, found):
            raise BundleError(f"{stage.file}: {what} {differs}")
        for t in tensors:
            dtype = np.dtype(t.dtype).type
            bind_tensor(t.name, kind, device, dtype, t.shape, address(t.name))
    return binding


def session_options(threads: int) -> ort.SessionOptions:
    """For one stage, whatever it runs on."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Denormals halve the speed of networks whose activations fade out.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Every session has its own workers. Spinning gains next to nothing on idle cores, and beside a
    # process that keeps one busy a frame takes 20 to 40 % longer: docs/results.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Never ONNX Runtime's own format, which `read_stage` cannot check.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def first_line(error: Exception) -> str:
    """The gist of an error of ONNX Runtime, which may go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
