"""ONNX Runtime on the CPU: one session per stage, all bound to the same buffers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort

from ..bundle.bundle import Bundle
from ..bundle.manifest import StageFile
from ..support.errors import BackendError, BundleError
from .base import difference
from .host import HostBackend, first_line
from .onnx_file import read_stage

_TYPES = {"uint8": "tensor(uint8)", "float16": "tensor(float16)", "float32": "tensor(float)"}


class OrtCpuBackend(HostBackend):
    """The sessions read and write the buffers by IO binding."""

    name = "ort-cpu"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Open a session per stage; raises as `open_backend`."""
        # No warnings about missing GPUs; errors come as exceptions.
        ort.set_default_logger_severity(3)
        super().__init__(bundle)
        self.engine = f"ONNX Runtime {ort.__version__}"
        self.device = f"CPU, {self.engine}"
        self.precision = bundle.manifest.precision
        self._threads = threads
        stages = bundle.manifest.stages
        # Opening holds the interpreter's lock only now and then, so two cores nearly halve it.
        with ThreadPoolExecutor(min(threads, len(stages))) as pool:
            sessions = pool.map(lambda stage: self._open(bundle, stage), stages)
            self.take_stages({s.name: opened for s, opened in zip(stages, sessions, strict=True)})

    def _open(self, bundle: Bundle, stage: StageFile) -> Any:
        content = read_stage(bundle, stage)
        options = session_options(self._threads)
        try:
            return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = first_line(error)
            raise BackendError(
                f"{self.engine} cannot open stage {stage.name!r}: {reason}",
                "a newer onnxruntime may read it; else export the bundle again",
            ) from error

    def bind(self, stage: StageFile, opened: Any) -> Callable[[], object]:
        place = "cpu", 0, lambda tensor: self.buffers[tensor].ctypes.data
        return partial(opened.run_with_iobinding, bind(stage, opened, *place))


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
