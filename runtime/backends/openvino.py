"""OpenVINO on the CPU: one compiled model per stage, all bound to the same buffers.

bf16 is for convolutions alone, those of 1 x 1 pixel excepted. OpenVINO would compute nearly all in
it, coordinates as well, which gains nothing here: large convolutions are what takes time.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

from ..bundle.bundle import Bundle
from ..bundle.manifest import StageFile
from ..support.errors import BackendError, BundleError
from ..support.process import import_or_explain
from .base import default_threads, difference
from .host import HostBackend, first_line
from .onnx_file import has_functions, read_stage

CURE = 'pip install "sonomime[openvino]" (or openvino and onnx)'
_TYPES = {"uint8": "u8", "float16": "f16", "float32": "f32"}


class OpenVinoBackend(HostBackend):
    """Compiled models read and write the buffers as shared memory."""

    name = "openvino"

    def __init__(self, bundle: Bundle, threads: int, precision: str = "fp32") -> None:
        """Compile each stage; raises as `open_backend`. precision: fp32, or bf16 if the CPU can."""
        super().__init__(bundle)
        self._openvino = import_openvino()
        self.engine = f"OpenVINO {self._openvino.__version__.partition('-')[0]}"
        self.device = f"CPU, {self.engine}, {precision}"
        self.precision, self._threads = precision, threads
        try:
            core = self._openvino.Core()
            able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except Exception as error:  # its classes have no other common base
            why = f"{self.engine} cannot be used: {first_line(error)}"
            raise BackendError(why, "install it again; else use the backend cpu") from error
        if precision == "bf16" and "BF16" not in able:
            hint = "leave the precision out: fp32 runs everywhere"
            raise BackendError("this CPU has no instructions for bf16", hint)
        stages = bundle.manifest.stages
        self.take_stages({stage.name: self._open(core, bundle, stage) for stage in stages})

    def _open(self, core: Any, bundle: Bundle, stage: StageFile) -> Any:
        content = read_stage(bundle, stage)
        try:
            if has_functions(content):
                content = _inlined(content)
            model = core.read_model(BytesIO(content))
            if model.is_dynamic():
                raise ValueError("its shapes are not fixed")
            if self.precision == "bf16":
                halve_convolutions(model)
            return core.compile_model(model, "CPU", _settings(self._threads))
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(
                f"{self.engine} cannot open stage {stage.name!r}: {first_line(error)}",
                "use the backend cpu; a newer openvino may read it",
            ) from error

    def bind(self, stage: StageFile, opened: Any) -> Callable[[], object]:
        request = opened.create_infer_request()
        for what, tensors, ports in (
            ("input", stage.inputs, opened.inputs),
            ("output", stage.outputs, opened.outputs),
        ):
            said = {t.name: f"{_TYPES[t.dtype]} {list(t.shape)}" for t in tensors}
            found = {port.any_name: _described(port) for port in ports}
            if differs := difference(said, found):
                raise BundleError(f"{stage.file}: {what} {differs}")
            for port in ports:
                buffer = self.buffers[port.any_name]
                request.set_tensor(port, self._openvino.Tensor(buffer, shared_memory=True))
        return partial(request.infer, share_inputs=True, share_outputs=True)


def import_openvino() -> Any:
    """The package; BackendError if it cannot be imported."""
    with _without_telemetry():
        return import_or_explain("openvino", CURE)


def _inlined(content: bytes) -> bytes:
    """An ONNX file with the bodies of its own operators in their places, since OpenVINO reads
    none; BackendError if the onnx package cannot be imported."""
    inliner = import_or_explain("onnx.inliner", CURE)
    onnx = importlib.import_module("onnx")
    model = inliner.inline_local_functions(onnx.load_from_string(content))
    for imported in reversed(range(len(model.opset_import))):
        if model.opset_import[imported].domain:
            del model.opset_import[imported]
    return bytes(model.SerializeToString())


def halve_convolutions(model: Any) -> None:
    """Compute a model's convolutions in bf16, and all else as before. Those of 1 x 1 pixel, which
    mix descriptors and products of descriptors, would double the error of the motion."""
    ops = importlib.import_module("openvino.opset13")
    for conv in model.get_ordered_ops():
        if conv.get_type_name() == "Convolution" and max(conv.input(1).get_shape()[2:]) > 1:
            users = conv.output(0).get_target_inputs()
            for given in conv.inputs():
                given.replace_source_output(
                    ops.convert(given.get_source_output(), "bf16").output(0)
                )
            conv.validate_and_infer_types()
            made = ops.convert(conv.output(0), "f32").output(0)
            for user in users:
                user.replace_source_output(made)
    model.validate_nodes_and_infer_types()


def _settings(threads: int) -> dict[str, Any]:
    streams = max(1, default_threads() // threads)  # frames that are made at the same time
    return {
        "INFERENCE_PRECISION_HINT": "f32",  # its own choice depends on the CPU
        "INFERENCE_NUM_THREADS": threads * streams,
        "NUM_STREAMS": streams,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads of two processes would share a core while others are idle.
        "ENABLE_CPU_PINNING": False,
    }


def _described(port: Any) -> str:
    return f"{port.get_element_type().get_type_name()} {list(port.get_partial_shape().to_shape())}"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Import openvino without its converter, whose import reports to its makers, over the network
    and unasked, that it was imported."""
    converter = "openvino.tools.ovc"
    if converter in sys.modules:
        yield
        return
    sys.modules[converter] = None  # type: ignore[assignment]  # openvino goes on without it
    try:
        yield
    finally:
        sys.modules.pop(converter, None)
