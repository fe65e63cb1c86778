"""How an Animator is opened to be measured, and how it is described in reports."""

from __future__ import annotations

from typing import Any

from ..runtime.animator import Animator
from ..runtime.bundle.bundle import Bundle


def open_animator(
    bundle: Bundle,
    backend: str,
    precision: str | None = None,
    threads: int | None = None,
    device: int | None = None,
) -> Animator:
    """An Animator with default options.

    Args:
        precision: None leaves it to the backend.
        threads: on the CPU; None is the physical cores.
        device: number of the GPU; None is the first.

    Raises:
        ConfigError: an unknown backend or precision, or one that does not fit the others.
        BackendError: the backend cannot serve.
    """
    more: dict[str, Any] = {} if precision is None else {"precision": precision}
    return Animator.open(bundle, backend, threads=threads, device=device, **more)


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """A bundle as plain data."""
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "preset": manifest.preset,
        "precision": manifest.precision,
        "size": manifest.image.size,
        "channels": manifest.image.channels,
        "digest": bundle.digest,
    }


def bundle_line(bundle: dict[str, Any]) -> str:
    """The same for a person."""
    return (
        "{name} {precision} {size}x{size}x{channels}, digest ".format(**bundle)
        + (bundle["digest"][:12])
    )
