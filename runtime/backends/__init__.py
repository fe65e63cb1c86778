"""Where a bundle's stages run. Backends are imported when they are opened."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import BackendError, ConfigError
from ..strict import nearest
from .base import Backend, default_threads

__all__ = ["BACKENDS", "Backend", "default_threads", "open_backend", "resolve_threads"]

BACKENDS = ("auto", "ort-cpu")
"""Names that `Animator.open(backend=...)` takes."""

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


def open_backend(name: str, bundle: Bundle, threads: int | None = None) -> Backend:
    """Open all of a bundle's stages.

    Args:
        name: one of BACKENDS; `auto` takes the best one that can serve, today `ort-cpu`.
        bundle: an opened, hence verified, bundle.
        threads: CPU threads for one stage; None is the physical cores that are available.

    Raises:
        ConfigError: unknown name, or threads out of range.
        BackendError: the backend cannot serve; the hint names the cure.
        BundleError: a stage file is not sound ONNX or does not match the manifest.
    """
    if name not in BACKENDS:
        close = nearest(name, BACKENDS)
        hint = f"did you mean {close!r}?" if close else "known: " + ", ".join(BACKENDS)
        raise ConfigError(f"unknown backend {name!r}", hint)
    count = resolve_threads(threads)
    try:
        from .ort import OrtCpuBackend
    except ImportError as error:
        hint = 'pip install "sonomime[cpu]" (or onnxruntime); `sonomime doctor` checks the rest'
        raise BackendError(f"ONNX Runtime cannot be imported: {error}", hint) from error
    return OrtCpuBackend(bundle, count)
