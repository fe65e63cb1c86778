"""Where a bundle's stages run. Backends are imported when they are opened."""

from __future__ import annotations

import logging
from typing import NoReturn

from ..bundle.bundle import Bundle
from ..support.dataclass_parser import nearest
from ..support.errors import BackendError, ConfigError
from ..support.process import import_or_explain
from .base import Backend, default_threads

log = logging.getLogger("sonomime")

BACKENDS = ("auto", "ort-cpu", "openvino", "ort-cuda", "tensorrt", "rtx")
"""Names that `Animator.open(backend=...)` takes, besides ALIASES."""

ALIASES = {"cpu": "ort-cpu"}
"""Other names for them."""

PREFERENCE = ("tensorrt", "rtx", "ort-cuda")
"""What `auto` tries on a GPU, best first, before it takes the CPU."""

ON_CPU = ("ort-cpu", "openvino")
"""Backends that need no GPU, and cannot use one."""

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
"""What numbers are computed in. All but bf16 are properties of the bundle's files."""

MAX_THREADS = 256
"""More would not be faster, but every stage would start them, and thousands fill the memory."""

_CURES = {
    "ort-cpu": 'pip install "sonomime[cpu]" (or onnxruntime); `sonomime doctor` checks the rest',
    "ort-cuda": 'pip install "sonomime[gpu]" (or onnxruntime-gpu)',
}


def resolve_threads(threads: int | None) -> int:
    """The number of CPU threads to use; None is one per available physical core.

    Raises:
        ConfigError: below 1 or above MAX_THREADS.
    """
    if threads is None:
        return min(default_threads(), MAX_THREADS)
    if 1 <= threads <= MAX_THREADS:
        return threads
    raise ConfigError(
        f"threads must be at least 1 and at most {MAX_THREADS}, not {threads}",
        "leave it out for one thread per physical core",
    )


def resolve_backend(name: str, device: int | None = None) -> str:
    """The name in BACKENDS that `name` stands for.

    Raises:
        ConfigError: an unknown name, or one of ON_CPU together with the number of a GPU.
    """
    name = ALIASES.get(name, name)
    if name not in BACKENDS:
        close = nearest(name, BACKENDS)
        hint = f"did you mean {close!r}?" if close else "known: " + ", ".join((*BACKENDS, *ALIASES))
        raise ConfigError(f"unknown backend {name!r}", hint)
    if name in ON_CPU and device is not None:
        raise ConfigError(
            f"backend {name!r} cannot use a GPU, but device {device} names one",
            "leave the device out, or use backend auto",
        )
    return name


def resolve_precision(precision: str | None, name: str, bundle: Bundle) -> str:
    """What to compute in; None is what the bundle holds.

    Raises:
        ConfigError: an unknown precision, or one that the bundle does not hold.
    """
    held = bundle.manifest.precision
    if precision is None or precision == held:
        return held
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}", f"known: {', '.join(PRECISIONS)}")
    if precision == "bf16" and held == "fp32":
        if name == "openvino":
            return precision
        raise ConfigError(f"backend {name!r} cannot compute in bf16", "the backend openvino can")
    cures = {
        "fp16": "`sonomime export --precision fp16` writes a bundle that does",
        "int8": "`sonomime quantize` writes a bundle that does",
    }
    what = f"bundle {bundle.manifest.name!r} holds {held} numbers, not {precision}"
    raise ConfigError(what, cures.get(precision, "leave the precision out"))


def open_backend(
    name: str, bundle: Bundle, threads: int | None = None, device: int | None = None,
    precision: str | None = None,
) -> Backend:  # fmt: skip
    """Open all of a bundle's stages.

    Args:
        name: one of BACKENDS or ALIASES. `auto` takes the first that works: engines built for this
            GPU, ONNX Runtime on the GPU, ONNX Runtime on the CPU. What it skipped, and why, is
            logged at INFO. (`fastest.open_session` also compares the CPU's engines.)
        bundle: an opened, hence verified, bundle.
        threads: CPU threads for one stage, on the CPU; None is one per available physical core.
        device: number of the GPU, from 0, among those that the process sees; None is the first.
            With `auto` and a number, the CPU does not take the GPU's place.
        precision: one of PRECISIONS; None is what the bundle holds.

    Raises:
        ConfigError: unknown name, threads out of range, a GPU for the CPU's backends, or a
            precision that cannot be.
        BackendError: the backend is not available, or there is no such GPU.
        BundleError: a stage file is not sound ONNX, uses a refused operator, or does not match the
            manifest.
    """
    name, count = resolve_backend(name, device), resolve_threads(threads)
    if name == "auto":
        resolve_precision(precision, "ort-cpu", bundle)
        return open_on_gpu(bundle, device) or _open("ort-cpu", bundle, count, device)
    return _open(name, bundle, count, device, resolve_precision(precision, name, bundle))


def _open(
    name: str, bundle: Bundle, threads: int, device: int | None, precision: str = ""
) -> Backend:
    if name == "openvino":
        from .openvino import OpenVinoBackend

        return OpenVinoBackend(bundle, threads, precision)
    if name in _CURES:
        import_or_explain("onnxruntime", _CURES[name])
    if name == "ort-cpu":
        from .ort import OrtCpuBackend

        return OrtCpuBackend(bundle, threads)
    if name == "ort-cuda" and bundle.manifest.precision != "int8":
        from .ort_cuda import OrtCudaBackend

        return OrtCudaBackend(bundle, device)
    if bundle.manifest.precision == "int8":
        _refuse_int8(bundle)
    from .tensorrt import TensorRtBackend

    return TensorRtBackend(bundle, name, device)


def _refuse_int8(bundle: Bundle) -> NoReturn:
    hint = "use the float bundle that it was made of"
    raise BackendError(f"bundle {bundle.manifest.name!r} is int8, which is for CPUs", hint)


def open_on_gpu(bundle: Bundle, device: int | None) -> Backend | None:
    """The best backend for that GPU, or for the first one. Where none serves it is None, or a
    BackendError if the GPU was given by its number."""
    from .cuda import open_device

    if bundle.manifest.precision == "int8":
        if device is not None:
            _refuse_int8(bundle)
        return None
    try:
        open_device(device)
    except BackendError as error:
        if device is not None:
            raise
        # All at once: none of them works without a GPU, and importing them takes seconds.
        log.info("auto passes over %s: %s", ", ".join(PREFERENCE), error.message)
        return None
    reasons = []
    for name in PREFERENCE:
        try:
            return _open(name, bundle, 1, device)
        except BackendError as error:
            log.info("auto passes over %s: %s", name, error.message)
            reasons.append(f"{name}: {error.message}")
    if device is not None:
        raise BackendError(
            f"no backend can use GPU {device}: {'; '.join(reasons)}",
            f"`sonomime build {bundle.folder} --device {device}` makes engines for it",
        )
    # A user with a GPU expects it to be used.
    log.warning("frames run on the CPU, the GPU is not used: `sonomime build` makes engines for it")
    return None
