"""TensorRT, of both flavours: engines shared by the process, a context per Animator and stage."""

from __future__ import annotations

import functools
import hashlib
import logging
from typing import Any
from weakref import WeakValueDictionary

from ..bundle.bundle import Bundle
from ..bundle.manifest import Stage
from ..engines.engine_store import load_engines
from ..engines.tensorrt_packages import gpu_target, load_flavour, load_plugin, rtx_target
from ..support.errors import BackendError
from .base import difference
from .cuda import open_device
from .device_backend import DeviceBackend

log = logging.getLogger("sonomime")

# TensorRT's names.
_TYPES = {"uint8": "UINT8", "float16": "HALF", "float32": "FLOAT"}
_BUILD_AGAIN = "build the engines again (sonomime build)"


class Engine:
    """A stage's engine, deserialised; what it was made with lives as long as it does."""

    def __init__(self, trt: Any, content: bytes, stage: str) -> None:
        """Deserialise; a BackendError with TensorRT's reason if it refuses."""
        self.logger = engine_logger(trt)
        self.logger.reason()  # forget earlier errors
        self._runtime = trt.Runtime(self.logger)
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            raise BackendError(
                f"TensorRT {trt.__version__} cannot load the engine of stage {stage!r}: "
                f"{self.logger.reason()}",
                "build it again on this machine (sonomime build); an engine that calls the plugin "
                "needs it (SONOMIME_PLUGIN), and a full GPU refuses engines too (nvidia-smi)",
            )


# By flavour, GPU and digest. Engines are heavy and threads can share them; contexts are neither.
# One thread at a time opens stages (`alone`), so no lock is needed, and the logger's last error is
# about the stage at hand.
_engines: WeakValueDictionary[tuple[str, int, str], Engine] = WeakValueDictionary()


class TensorRtBackend(DeviceBackend):
    """See `DeviceBackend`. Addresses are set once, when a context is made."""

    def __init__(self, bundle: Bundle, flavour: str, device: int | None = None) -> None:
        """Load the engines and make the contexts on the GPU of that number; None is the first.
        Raises as `open_backend`; engines may be not built, stale or not trusted."""
        gpu = open_device(device)
        self.again = functools.partial(TensorRtBackend, bundle, flavour, device)
        self.name = flavour
        _, self._trt = load_flavour(flavour)
        if flavour == "tensorrt":  # with RTX it would abort the process
            load_plugin(self._trt)
            targets = [gpu_target(gpu.name, *gpu.capability)]
        else:
            targets = [rtx_target(*gpu.capability)]
        self._contents = load_engines(bundle, flavour, self._trt, targets, gpu.index)
        title = "TensorRT-RTX" if flavour == "rtx" else "TensorRT"
        super().__init__(bundle, gpu, f"{title} {self._trt.__version__}")

    def _open_stages(self, bundle: Bundle) -> None:
        for stage in bundle.manifest.stages:
            content = self._contents.pop(stage.name)
            key = self.name, self._device.index, hashlib.sha256(content).hexdigest()
            engine = _engines.get(key)
            if engine is None:
                engine = _engines[key] = Engine(self._trt, content, stage.name)
            self._compare(stage, engine.engine)
            # Contexts go before the memory that they point into, and before their engines: a tuple
            # lets go of its last element first.
            self._opened[stage.name] = (engine, self._context(stage, engine))
            # Nor is a context in a variable: an error's trace would keep it longer than its memory.
            for tensor in (*stage.inputs, *stage.outputs):
                address = self._memory.address(tensor.name)
                if not self._opened[stage.name][1].set_tensor_address(tensor.name, address):
                    raise BackendError(
                        f"TensorRT refuses the memory of {tensor.name!r} in stage {stage.name!r}: "
                        f"{engine.logger.reason()}",
                        _BUILD_AGAIN,
                    )

    def _compare(self, stage: Stage, engine: Any) -> None:
        """An engine must have exactly the manifest's tensors: it is given bare addresses."""
        modes = self._trt.TensorIOMode
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        for mode, what, tensors in (
            (modes.INPUT, "input", stage.inputs),
            (modes.OUTPUT, "output", stage.outputs),
        ):
            said = {t.name: f"{_TYPES[t.dtype]} {list(t.shape)} LINEAR" for t in tensors}
            found = {n: _described(engine, n) for n in names if engine.get_tensor_mode(n) == mode}
            if differs := difference(said, found):
                raise BackendError(
                    f"the engine of stage {stage.name!r}: {what} {differs}", _BUILD_AGAIN
                )

    def _context(self, stage: Stage, engine: Engine) -> Any:
        engine.logger.reason()  # forget earlier errors
        context = engine.engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"TensorRT has no room for stage {stage.name!r} ({self._device.room()}): "
                f"{engine.logger.reason()}",
                "free some of the GPU's memory (nvidia-smi shows what uses it), or close other "
                "Animators",
            )
        return context

    def _check_capture(self) -> None:
        for stage, (_, context) in self._opened.items():
            # Only RTX, which compiles where it runs, has this function.
            ask = getattr(context, "is_stream_capturable", None)
            if ask is not None and not ask(self._stream):
                raise BackendError(f"TensorRT-RTX cannot capture stage {stage!r} now")

    def _enqueue(self, stage: str) -> None:
        if not self._opened[stage][1].execute_async_v3(self._stream):
            raise BackendError(
                f"stage {stage!r} failed in TensorRT: {self._opened[stage][0].logger.reason()}",
                "look at nvidia-smi; SONOMIME_CUDA_GRAPH=0 runs it call by call, for debugging",
            )


def _described(engine: Any, name: str) -> str:
    kind, layout = engine.get_tensor_dtype(name), engine.get_tensor_format(name)
    shape = [int(side) for side in engine.get_tensor_shape(name)]
    return f"{kind.name} {shape} {layout.name}"


@functools.lru_cache(maxsize=2)  # a flavour each
def engine_logger(trt: Any) -> Any:
    """The logger of all engines of a flavour, which keeps the first error for `reason()`.

    It lives as long as the process: TensorRT keeps a pointer to the first logger that it is given.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._error = ""

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self._error = self._error or message
                log.debug("TensorRT: %s", message)

        def reason(self) -> str:
            """The first error since the last call: later ones follow from it."""
            said, self._error = self._error, ""
            return said.strip() or "it gave no reason"

    return Logger()
