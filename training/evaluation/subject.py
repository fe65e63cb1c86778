"""What is evaluated: a bundle through the runtime or a checkpoint through torch, with one face."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError


class Predictor(Protocol):
    """What animates: the runtime's Animator and `TorchAnimator` both are one.

    Images are uint8 (S, S) grey or (S, S, 3) RGB at the model's size.
    """

    def set_source(self, image: NDArray[np.uint8]) -> None:
        """Take the still to animate."""

    def set_reference(self, frame: NDArray[np.uint8]) -> None:
        """Take the driving frame that relative motion starts from."""

    def animate(
        self, frame: NDArray[np.uint8], timestamp: float | None = None
    ) -> NDArray[np.uint8]:
        """The synthesized frame for a driving frame."""

    def read(self, name: str) -> NDArray[Any]:
        """A tensor of the last frame, e.g. `deformation` (1, h, w, 2) or (h, w, 2)."""


@dataclass(frozen=True)
class Subject:
    """A model under test, opened once for absolute and once for relative motion.

    Attributes:
        size: side of the model's square frame, in pixels.
        channels: 1 (grey) or 3 (RGB).
        geometry: "half_pixel" or "fomm", see `metrics.warp_by_deformation`.
        facts: what it is, for the report: kind, name, digest, and so on.
    """

    absolute: Predictor
    relative: Predictor
    size: int
    channels: int
    geometry: str
    facts: dict[str, str]


@contextmanager
def open_subject(path: Path) -> Iterator[Subject]:
    """Open a bundle (a folder) or a checkpoint (a file).

    Raises:
        InputError: there is nothing of that name, or a folder without a manifest.
        BundleError, CheckpointError, BackendError: it cannot be opened.
    """
    hint = "give a checkpoint or a bundle"
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder", hint)
    if path.is_dir() and not (path / "manifest.json").is_file():
        found = path / "checkpoint.pt"
        raise InputError(
            f"{path}: is not a bundle (there is no manifest.json in it)",
            f"the run's checkpoint is {found}" if found.is_file() else hint,
        )
    with ExitStack() as stack:
        yield _bundle(path, stack) if path.is_dir() else _checkpoint(path)


def _bundle(path: Path, stack: ExitStack) -> Subject:
    from ...runtime.animator import Animator
    from ...runtime.bundle import MANIFEST, Bundle, sha256_file

    bundle = Bundle.open(path)
    manifest = bundle.manifest
    absolute = stack.enter_context(Animator.open(bundle, motion="absolute"))
    relative = stack.enter_context(Animator.open(bundle, motion="relative"))
    facts = {
        "kind": "bundle",
        "path": str(path),
        # The manifest holds the digest of every other file, so its own stands for all.
        "manifest_sha256": sha256_file(path / MANIFEST),
        "name": manifest.name,
        "preset": manifest.preset,
        "precision": manifest.precision,
        "backend": absolute.backend.name,
        **_versions("onnxruntime"),
    }
    image = manifest.image
    geometry = manifest.conventions.geometry
    return Subject(absolute, relative, image.size, image.channels, geometry, facts)


def _checkpoint(path: Path) -> Subject:
    from ...runtime.bundle import sha256_file
    from ..checkpoint import load_checkpoint
    from ..predictor import TorchAnimator

    checkpoint = load_checkpoint(path)
    model = checkpoint.config.model
    facts = {
        "kind": "checkpoint",
        "path": str(path),
        "sha256": sha256_file(path),
        "step": str(checkpoint.step),
        **_versions("torch"),
    }
    absolute = TorchAnimator(checkpoint, "absolute")
    relative = TorchAnimator(checkpoint, "relative")
    return Subject(absolute, relative, model.image_size, model.channels, model.geometry, facts)


def _versions(*more: str) -> dict[str, str]:
    """Versions of Python, this package and what the numbers depend on."""
    from ... import __version__

    versions = {"python": platform.python_version(), "sonomime": __version__}
    for name in ("numpy", "opencv-python-headless", *more):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"  # e.g. another distribution of the same module
    return versions
