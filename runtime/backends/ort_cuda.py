"""ONNX Runtime on a GPU: the sessions bound to the device's memory, all on one stream.

Each stage is a CUDA graph of ONNX Runtime's own, since its sessions may allocate while they run and
so cannot be captured from outside: a frame takes one launch per stage, not one in all. A stage is
captured in its first run, after two passes that may allocate, and again for each thread.
"""

from __future__ import annotations

import functools
import io
import logging
import threading
from collections import Counter
from contextlib import redirect_stdout, suppress
from typing import Any

import onnxruntime as ort

from ..bundle.bundle import Bundle
from ..bundle.manifest import StageFile
from ..support.errors import BackendError
from .cuda import open_device
from .device_backend import TRIES, DeviceBackend, alone
from .host import first_line
from .onnx_file import read_stage
from .ort import bind, session_options

log = logging.getLogger("sonomime")

PROVIDER = "CUDAExecutionProvider"
NOT_LOADED = (
    'pip install "onnxruntime-gpu[cuda,cudnn]", or put the CUDA and cuDNN that it was built for on '
    "LD_LIBRARY_PATH; what it wrote to stderr names the library that it lacks"
)


class _OfThread(threading.local):
    """ONNX Runtime captures a stage for the calling thread, and replays it only there."""

    def __init__(self) -> None:
        self.settled: dict[str, Any] = {}  # by stage, the options of its runs from now on
        self.failures: Counter[str] = Counter()


class OrtCudaBackend(DeviceBackend):
    """See `DeviceBackend`."""

    name = "ort-cuda"
    captures = False

    def __init__(self, bundle: Bundle, device: int | None = None) -> None:
        """Open a session per stage on the GPU of that number; None is the first. Raises as
        `open_backend`."""
        self.again = functools.partial(OrtCudaBackend, bundle, device)
        require_provider()
        ort.set_default_logger_severity(3)
        preload()
        self._of_thread = _OfThread()
        self._capturing, self._plain = ort.RunOptions(), ort.RunOptions()
        for options in (self._capturing, self._plain):
            # The frame waits once, not every stage. (Older versions of ONNX Runtime wait in a
            # graph's replay all the same.)
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._plain.add_run_config_entry("gpu_graph_id", "-1")  # neither captured nor replayed
        super().__init__(bundle, open_device(device), f"ONNX Runtime {ort.__version__} CUDA")

    def _open_stages(self, bundle: Bundle) -> None:
        for stage in bundle.manifest.stages:
            session = self._session(stage, read_stage(bundle, stage))
            place = "cuda", self._device.index
            # Not in a variable: the trace of a later error would keep it longer than its memory.
            self._opened[stage.name] = (session, bind(stage, session, *place, self._memory.address))

    def _session(self, stage: StageFile, content: bytes, graph: bool = True) -> Any:
        """With a CUDA graph, or without where some of its nodes have to run on the CPU."""
        options = {
            "device_id": str(self._device.index),
            "user_compute_stream": str(self._stream),
            "enable_cuda_graph": str(int(graph)),
            # Keep the bundle's precision: float32 must not become TF32.
            "use_tf32": "0",
        }
        try:
            # With its fallback it would print an error, drop our options and open the stage again.
            session = ort.InferenceSession(
                content,
                session_options(1),
                providers=[(PROVIDER, options), "CPUExecutionProvider"],
                enable_fallback=0,
            )
            # Versions without enable_fallback open it on another stream, which nobody waits for.
            used = session.get_provider_options().get(PROVIDER, options)
            if used.get("user_compute_stream") != options["user_compute_stream"]:
                raise RuntimeError("ONNX Runtime took none of the CUDA provider's options")
        except Exception as error:
            if graph:
                why = first_line(error)
                log.warning("stage %r runs without a CUDA graph: %s", stage.name, why)
                return self._session(stage, content, graph=False)
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot open stage {stage.name!r} on "
                f"{self._device.name}: {first_line(error)}",
                "free some of the GPU's memory (see nvidia-smi); where a library "
                f"is missing, {NOT_LOADED}; else a newer onnxruntime-gpu may read it",
            ) from error
        # It falls back to the CPU with no more than a warning.
        if PROVIDER not in session.get_providers():
            raise BackendError(
                f"ONNX Runtime {ort.__version__} has a CUDA provider that did not load for stage "
                f"{stage.name!r}: it would run on the CPU",
                NOT_LOADED,
            )
        return session

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
                # It captures in mode Global: any cudaMalloc, of any thread, spoils that.
                self._run(stage, self._plain)
                here.failures[stage] += 1
                if here.failures[stage] == TRIES:
                    log.warning("stage %r runs without a CUDA graph: %s", stage, error.message)
                    here.settled[stage] = self._plain

    def _run(self, stage: str, options: Any) -> None:
        try:
            # Not in a variable here either.
            self._opened[stage][0].run_with_iobinding(self._opened[stage][1], options)
        except Exception as error:  # pybind's classes have no other common base
            # A capture left open would end the process when the session is destroyed.
            self._device.abort_capture(self._stream)
            raise BackendError(
                f"stage {stage!r} failed in ONNX Runtime: {first_line(error)}",
                "look at nvidia-smi; --backend cpu needs no GPU",
            ) from error.with_traceback(None)


def require_provider() -> None:
    """A BackendError if this ONNX Runtime is the package for CPUs; whether CUDA loads, only a
    session shows."""
    if PROVIDER not in ort.get_available_providers():
        raise BackendError(
            f"this ONNX Runtime ({ort.__version__}) has no CUDA provider",
            'in an environment without onnxruntime: pip install "sonomime[gpu]" (onnxruntime and '
            "onnxruntime-gpu share one module)",
        )


@functools.cache
def preload() -> None:
    """Let ONNX Runtime find CUDA and cuDNN in NVIDIA's pip packages, from version 1.21 on."""
    said = io.StringIO()
    with redirect_stdout(said), suppress(OSError, RuntimeError):  # it prints what it misses
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    log.debug("preloading for ONNX Runtime: %s", said.getvalue().strip() or "done")
