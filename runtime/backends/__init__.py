"""Where a bundle's stages run. Backends are imported when they are opened."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..bundle.bundle import Bundle
from ..support.dataclass_parser import nearest
from ..support.errors import BackendError, ConfigError
from .base import Backend, default_threads

log = logging.getLogger("sonomime")

BACKENDS = ("auto", "ort-cpu", "ort-cuda", "tensorrt", "rtx")
"""Names that `Animator.open(backend=...)` takes, besides ALIASES."""

ALIASES = {"cpu": "ort-cpu"}
"""Other names for them."""

PREFERENCE = ("tensorrt", "rtx", "ort-cuda")
"""What `auto` tries on a GPU, best first, before it takes `ort-cpu`."""

MAX_THREADS = 256
"""More would not be faster, but every stage would start them, and thousands fill the memory."""


def resolve_threads(threads: int | None) -> int:
    """The CPU threads meant by `threads`; None is the physical cores that are available.

    Raises:
        ConfigError: below 1 or above MAX_THREADS.
    """
    if threads is None:
        return min(default_threads(), MAX_THREADS)
    if not 1 <= threads <= MAX_THREADS:
        raise ConfigError(
            f"threads must be at least 1 and at most {MAX_THREADS}, not {threads}",
            "leave it out for one thread per physical core",
        )
    return threads


def resolve_backend(name: str, device: int | None = None) -> str:
    """The name in BACKENDS that is meant by `name`.

    Raises:
        ConfigError: there is none, or it is `ort-cpu` and a GPU was named by its number.
    """
    name = ALIASES.get(name, name)
    if name not in BACKENDS:
        close = nearest(name, BACKENDS)
        hint = f"did you mean {close!r}?" if close else "known: " + ", ".join((*BACKENDS, *ALIASES))
        raise ConfigError(f"unknown backend {name!r}", hint)
    if name == "ort-cpu" and device is not None:
        raise ConfigError(
            f"backend 'cpu' cannot use a GPU, but device {device} names one",
            "leave the device out, or use backend auto",
        )
    return name


def open_backend(
    name: str, bundle: Bundle, threads: int | None = None, device: int | None = None
) -> Backend:
    """Open all of a bundle's stages.

    Args:
        name: one of BACKENDS or ALIASES; `auto` takes the best one that can serve: engines that
            were built for this GPU, else ONNX Runtime on it, else on the CPU. What it passed over,
            and why, is logged at INFO.
        bundle: an opened, hence verified, bundle.
        threads: CPU threads for one stage, on the CPU; None is the physical cores available.
        device: number of the GPU, from 0, among those that the process sees; None is the first.
            With `auto` a GPU that is named has to serve: the CPU does not take its place.

    Raises:
        ConfigError: unknown name, threads out of range, or a GPU for `ort-cpu`.
        BackendError: the backend cannot serve, or there is no such GPU; the hint names the cure.
        BundleError: a stage file is not sound ONNX or does not match the manifest.
    """
    name = resolve_backend(name, device)
    count = resolve_threads(threads)
    if name == "auto":
        return _on_gpu(bundle, device) or _ort_cpu(bundle, count)
    if name == "ort-cpu":
        return _ort_cpu(bundle, count)
    return _OPENERS[name](bundle, device)


def _on_gpu(bundle: Bundle, device: int | None) -> Backend | None:
    """The best backend of the GPU that was named, or of the first if it serves; else None.

    Raises:
        BackendError: a GPU was named and is not there, or no backend serves it.
    """
    from .cuda import open_device

    try:
        open_device(device)
    except BackendError as error:
        if device is not None:
            raise
        # Not one by one: without a GPU none of them serves, and importing them takes seconds.
        log.info("auto passes over %s: %s", ", ".join(PREFERENCE), error.message)
        return None
    reasons = []
    for name in PREFERENCE:
        try:
            return _OPENERS[name](bundle, device)
        except BackendError as error:
            log.info("auto passes over %s: %s", name, error.message)
            reasons.append(f"{name}: {error.message}")
    if device is not None:
        raise BackendError(
            f"no backend serves GPU {device}: {'; '.join(reasons)}",
            f"`sonomime build {bundle.folder} --device {device}` makes engines for it",
        )
    # Who has a GPU thinks that it is used.
    log.warning("frames run on the CPU, the GPU is not used: `sonomime build` makes engines for it")
    return None


def _ort_cpu(bundle: Bundle, threads: int) -> Backend:
    try:
        from .ort import OrtCpuBackend
    except ImportError as error:
        hint = 'pip install "sonomime[cpu]" (or onnxruntime); `sonomime doctor` checks the rest'
        raise BackendError(f"ONNX Runtime cannot be imported: {error}", hint) from error
    return OrtCpuBackend(bundle, threads)


def _ort_cuda(bundle: Bundle, device: int | None) -> Backend:
    try:
        from .ort_cuda import open_ort_cuda
    except ImportError as error:
        hint = 'pip install "sonomime[gpu]" (or onnxruntime-gpu)'
        raise BackendError(f"ONNX Runtime cannot be imported: {error}", hint) from error
    return open_ort_cuda(bundle, device)


def _tensorrt(bundle: Bundle, device: int | None) -> Backend:
    from .tensorrt import open_tensorrt

    return open_tensorrt(bundle, "tensorrt", device)


def _rtx(bundle: Bundle, device: int | None) -> Backend:
    from .tensorrt import open_tensorrt

    return open_tensorrt(bundle, "rtx", device)


_OPENERS: dict[str, Callable[[Bundle, int | None], Backend]] = {
    "tensorrt": _tensorrt, "rtx": _rtx, "ort-cuda": _ort_cuda,
}  # fmt: skip
