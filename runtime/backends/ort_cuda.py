"""ONNX Runtime on a GPU: the sessions bound to the device's memory, all on one stream.

Each stage is a CUDA graph of ONNX Runtime's own, since its sessions cannot be captured from outside
(they may allocate while they run). A frame so takes one launch per stage, not one in all. A stage
is captured in its first run, after two passes that may allocate, and again for each thread.
"""

from __future__ import annotations

import functools
import io
import logging
import threading
from collections import Counter
from contextlib import redirect_stdout, suppress
from typing import Any

import numpy as np
import onnxruntime as ort

from ..bundle.bundle import Bundle
from ..bundle.manifest import Stage
from ..support.errors import BackendError
from .cuda import Device, open_device
from .device_backend import TRIES, DeviceBackend, alone
from .onnx_file import check_onnx
from .ort import compare_graph, first_line, session_options

log = logging.getLogger("sonomime")

PROVIDER = "CUDAExecutionProvider"
NOT_FOR_GPUS = (
    'in an environment without onnxruntime: pip install "sonomime[gpu]" (onnxruntime and '
    "onnxruntime-gpu share one module)"
)
NOT_LOADED = (
    'pip install "onnxruntime-gpu[cuda,cudnn]", or put the CUDA and cuDNN that it was built for on '
    "LD_LIBRARY_PATH; what it wrote to stderr names the library that it lacks"
)


class _OfThread(threading.local):
    """ONNX Runtime captures a stage for the thread that calls, and only replays it there."""

    def __init__(self) -> None:
        self.settled: dict[str, Any] = {}  # by stage, the options of its runs from now on
        self.failures: Counter[str] = Counter()


class OrtCudaBackend(DeviceBackend):
    """See `DeviceBackend`."""

    name = "ort-cuda"
    captures = False

    def __init__(self, bundle: Bundle, device: Device) -> None:
        """Open a session per stage.

        Raises:
            BackendError: the provider is not there or does not load, or memory ran out.
            BundleError: a stage is unsound ONNX, keeps data outside, or differs from the manifest.
        """
        require_provider()
        ort.set_default_logger_severity(3)
        preload()
        self._of_thread = _OfThread()
        self._capturing, self._plain = _run_options(), _run_options()
        self._plain.add_run_config_entry("gpu_graph_id", "-1")  # neither captured nor replayed
        super().__init__(bundle, device, f"ONNX Runtime {ort.__version__} CUDA")

    def _open_stages(self, bundle: Bundle) -> None:
        for stage in bundle.manifest.stages:
            content = bundle.read(stage.file)
            check_onnx(content, stage.file)
            session = self._session(stage, content)
            compare_graph(stage, session)
            self._opened[stage.name] = (session, self._bind(stage, session))

    def _session(self, stage: Stage, content: bytes) -> Any:
        """With a CUDA graph, or without where some of its nodes have to run on the CPU."""
        try:
            try:
                return self._try(stage, content, graph=True)
            except BackendError:
                raise
            except Exception as error:
                log.warning("stage %r runs without a CUDA graph: %s", stage.name, first_line(error))
                return self._try(stage, content, graph=False)
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot open stage {stage.name!r} on "
                f"{self._device.name}: {first_line(error)}",
                "free some of the GPU's memory (nvidia-smi shows who has it); where a library is "
                f"missing, {NOT_LOADED}; else a newer onnxruntime-gpu may read it",
            ) from error

    def _try(self, stage: Stage, content: bytes, graph: bool) -> Any:
        options = {
            "device_id": str(self._device.index),
            "user_compute_stream": str(self._stream),
            "enable_cuda_graph": str(int(graph)),
            # A bundle's precision is kept: float32 is not to become TF32 on the way.
            "use_tf32": "0",
        }
        # On an error it would print, drop our options and open the stage once more on its own.
        session = ort.InferenceSession(
            content,
            session_options(1),
            providers=[(PROVIDER, options), "CPUExecutionProvider"],
            enable_fallback=0,
        )
        # It falls back to the CPU with no more than a warning.
        if PROVIDER not in session.get_providers():
            raise BackendError(
                f"ONNX Runtime {ort.__version__} has a CUDA provider that did not load for stage "
                f"{stage.name!r}: it would run on the CPU",
                NOT_LOADED,
            )
        # Versions that know no enable_fallback open it on another stream, whose work nobody awaits.
        used = session.get_provider_options()[PROVIDER]
        if used.get("user_compute_stream") != options["user_compute_stream"]:
            raise RuntimeError("ONNX Runtime took none of the CUDA provider's options")
        return session

    def _bind(self, stage: Stage, session: Any) -> Any:
        binding = session.io_binding()
        place = ("cuda", self._device.index)
        for tensors, bind in (
            (stage.inputs, binding.bind_input), (stage.outputs, binding.bind_output),
        ):  # fmt: skip
            for tensor in tensors:
                kind, address = np.dtype(tensor.dtype).type, self._memory.address(tensor.name)
                bind(tensor.name, *place, kind, tensor.shape, address)
        return binding

    def _enqueue(self, stage: str) -> None:
        here = self._of_thread
        if stage in here.settled:
            self._run(stage, here.settled[stage])
            return
        with alone:
            try:
                self._run(stage, self._capturing)
                here.settled[stage] = self._capturing
            except BackendError as error:
                # It captures in mode Global: any cudaMalloc, in whichever thread, spoils that.
                self._run(stage, self._plain)
                here.failures[stage] += 1
                if here.failures[stage] == TRIES:
                    log.warning("stage %r runs without a CUDA graph: %s", stage, error.message)
                    here.settled[stage] = self._plain

    def _run(self, stage: str, options: Any) -> None:
        try:
            # In no variable: the trace of an error would keep them beyond their memory.
            self._opened[stage][0].run_with_iobinding(self._opened[stage][1], options)
        except Exception as error:  # pybind's own classes, which share no base but Exception
            # A capture that it left open would end the process when the session is destroyed.
            self._device.abort_capture(self._stream)
            raise BackendError(
                f"stage {stage!r} failed in ONNX Runtime: {first_line(error)}",
                "look at nvidia-smi; --backend cpu needs no GPU",
            ) from error.with_traceback(None)


def _run_options() -> Any:
    options = ort.RunOptions()
    # What waits is the frame, once, not every stage. (In a graph's replay older versions of ONNX
    # Runtime wait all the same.)
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def require_provider() -> None:
    """Is this an ONNX Runtime with CUDA at all? Whether it loads, only a session tells.

    Raises:
        BackendError: it is the package for CPUs.
    """
    if PROVIDER not in ort.get_available_providers():
        raise BackendError(
            f"this ONNX Runtime ({ort.__version__}) has no CUDA provider", NOT_FOR_GPUS
        )


@functools.cache
def preload() -> None:
    """Let ONNX Runtime find CUDA and cuDNN in NVIDIA's pip packages, from version 1.21 on."""
    said = io.StringIO()
    with redirect_stdout(said), suppress(OSError, RuntimeError):  # it prints what it misses
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    log.debug("preloading for ONNX Runtime: %s", said.getvalue().strip() or "done")


def open_ort_cuda(bundle: Bundle, device: int | None = None) -> OrtCudaBackend:
    """A bundle by ONNX Runtime on the GPU of that number; None is the first.

    Raises:
        BackendError: there is no such GPU, or as `OrtCudaBackend`.
    """
    require_provider()
    return OrtCudaBackend(bundle, open_device(device))
