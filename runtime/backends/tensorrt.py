"""TensorRT, of both flavours: engines shared by the process, a context per Animator and stage."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from ..bundle.bundle import Bundle
from ..bundle.manifest import Stage, Tensor
from ..engines.engine_store import build_command, load_engines
from ..engines.tensorrt_packages import gpu_target, load_flavour, load_plugin, rtx_target
from ..support.errors import BackendError
from .cuda import Device, open_device
from .device_backend import DeviceBackend

log = logging.getLogger("sonomime")

# By how TensorRT calls them.
_TYPES = {"uint8": "UINT8", "float16": "HALF", "float32": "FLOAT"}


class Engine:
    """A stage's engine, deserialised; what it was made with lives as long as it does."""

    def __init__(self, trt: Any, content: bytes, stage: str) -> None:
        """Deserialise.

        Raises:
            BackendError: TensorRT refuses; with what it said.
        """
        self.logger = engine_logger(trt)
        self.logger.reason()  # said of something else
        self._runtime = trt.Runtime(self.logger)
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            raise BackendError(
                f"TensorRT {trt.__version__} cannot load the engine of stage {stage!r}: "
                f"{self.logger.reason()}",
                "build it again on this machine (sonomime build); an engine that calls the plugin "
                "needs it (SONOMIME_PLUGIN), and a full GPU refuses engines too (nvidia-smi)",
            )


# Engines are heavy and can be shared between threads; contexts are neither. One thread at a time
# opens stages, so nothing more guards them, and what the logger was told is of the stage at hand.
_engines: WeakValueDictionary[tuple[str, int, str], Engine] = WeakValueDictionary()


def shared_engine(trt: Any, flavour: str, gpu: int, content: bytes, stage: str) -> Engine:
    """The engine of that content, deserialised at most once per GPU while anybody uses it.

    Args:
        trt: the module of the flavour.
        flavour: its name.
        gpu: number of the calling thread's GPU, on which the engine will lie.
        content: the engine, serialised.
        stage: its stage, for messages.

    Raises:
        BackendError: TensorRT refuses it.
    """
    key = (flavour, gpu, hashlib.sha256(content).hexdigest())
    engine = _engines.get(key)
    if engine is None:
        engine = _engines[key] = Engine(trt, content, stage)
    return engine


class TensorRtBackend(DeviceBackend):
    """See `DeviceBackend`. Addresses are set once, when a context is made."""

    def __init__(self, bundle: Bundle, flavour: str, device: Device) -> None:
        """Load the engines and make the contexts.

        Raises:
            BackendError: TensorRT is not installed, the engines are not built, are stale or not
                trusted, do not match the manifest, or memory ran out.
        """
        self.name = flavour
        _, self._trt = load_flavour(flavour)
        if flavour == "tensorrt":  # with RTX it would abort the process
            load_plugin(self._trt)
            targets = [gpu_target(device.name, *device.capability)]
        else:
            targets = [rtx_target(*device.capability)]
        self._contents = load_engines(bundle, flavour, self._trt, targets, device.index)
        title = "TensorRT-RTX" if flavour == "rtx" else "TensorRT"
        super().__init__(bundle, device, f"{title} {self._trt.__version__}")

    def _open_stages(self, bundle: Bundle) -> None:
        for stage in bundle.manifest.stages:
            if stage.name not in self._contents:
                build = build_command(bundle, self.name, self._device.index)
                raise BackendError(f"the engines lack stage {stage.name!r}", f"run: {build}")
            content = self._contents.pop(stage.name)
            gpu = self._device.index
            engine = shared_engine(self._trt, self.name, gpu, content, stage.name)
            _compare(self._trt, stage, engine.engine)
            # Contexts go before the memory that they point into, and before their engines: a tuple
            # lets go of its last element first.
            self._opened[stage.name] = (engine, self._context(stage, engine))
            self._set_addresses(stage)
        self._contents.clear()

    def _context(self, stage: Stage, engine: Engine) -> Any:
        engine.logger.reason()  # said of something else
        context = engine.engine.create_execution_context()
        if context is None:
            free, total = self._device.memory()
            raise BackendError(
                f"TensorRT has no room for stage {stage.name!r} ({free / 1e6:.0f} of "
                f"{total / 1e6:.0f} MB are free): {engine.logger.reason()}",
                "free some of the GPU's memory (nvidia-smi shows who has it), or close other "
                "Animators",
            )
        return context

    # Below no variable holds a context: the trace of an error would keep it beyond its memory.

    def _set_addresses(self, stage: Stage) -> None:
        for tensor in (*stage.inputs, *stage.outputs):
            address = self._memory.address(tensor.name)
            if not self._opened[stage.name][1].set_tensor_address(tensor.name, address):
                raise BackendError(
                    f"TensorRT refuses the memory of {tensor.name!r} in stage {stage.name!r}: "
                    f"{self._opened[stage.name][0].logger.reason()}",
                    "build the engines again (sonomime build)",
                )

    def _check_capture(self) -> None:
        for stage, (_, context) in self._opened.items():
            # Only RTX, which compiles where it runs, can tell.
            ask = getattr(context, "is_stream_capturable", None)
            if ask is not None and not ask(self._stream):
                raise BackendError(f"TensorRT-RTX cannot capture stage {stage!r} now")

    def _enqueue(self, stage: str) -> None:
        if not self._opened[stage][1].execute_async_v3(self._stream):
            raise BackendError(
                f"stage {stage!r} failed in TensorRT: {self._opened[stage][0].logger.reason()}",
                "look at nvidia-smi; SONOMIME_CUDA_GRAPH=0 runs it plainly, for debugging",
            )


def open_tensorrt(bundle: Bundle, flavour: str, device: int | None = None) -> TensorRtBackend:
    """A bundle's engines of a flavour, on the GPU of that number; None is the first.

    Raises:
        BackendError: there is no such GPU, or as `TensorRtBackend`.
    """
    return TensorRtBackend(bundle, flavour, open_device(device))


def _compare(trt: Any, stage: Stage, engine: Any) -> None:
    """An engine must have exactly the tensors of the manifest: it is given bare addresses."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    for mode, what, tensors in (
        (trt.TensorIOMode.INPUT, "input", stage.inputs),
        (trt.TensorIOMode.OUTPUT, "output", stage.outputs),
    ):
        said = {tensor.name: _said(tensor) for tensor in tensors}
        has = {n: _has(engine, n) for n in names if engine.get_tensor_mode(n) == mode}
        _agree(stage, what, said, has)


def _said(tensor: Tensor) -> tuple[str, tuple[int, ...], str]:
    return _TYPES[tensor.dtype], tensor.shape, "LINEAR"


def _has(engine: Any, name: str) -> tuple[str, tuple[int, ...], str]:
    kind, layout = engine.get_tensor_dtype(name), engine.get_tensor_format(name)
    shape: Sequence[int] = engine.get_tensor_shape(name)
    return kind.name, tuple(int(side) for side in shape), layout.name


def _agree(stage: Stage, what: str, said: dict[str, Any], has: dict[str, Any]) -> None:
    for name in sorted(said.keys() | has.keys()):
        if said.get(name) != has.get(name):
            raise BackendError(
                f"the engine of stage {stage.name!r}: {what} {name!r} is "
                f"{_show(has.get(name))} in the engine, {_show(said.get(name))} in the manifest",
                "build the engines again (sonomime build)",
            )


def _show(kind: tuple[str, tuple[int, ...], str] | None) -> str:
    return f"{kind[0]} {list(kind[1])} {kind[2]}" if kind else "absent"


@functools.lru_cache(maxsize=2)  # a flavour each
def engine_logger(trt: Any) -> Any:
    """The logger that keeps an error; its class can only be made once TensorRT is there.

    One for all engines, for good: TensorRT keeps a pointer to the first that the process gives it,
    and would go on using it after the engine that it came with is gone.
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
            """The first error since this was last asked: what follows one is its consequence."""
            said, self._error = self._error, ""
            return said.strip() or "it gave no reason"

    return Logger()
