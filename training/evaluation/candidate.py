"""What is evaluated: a bundle's stages or a checkpoint's modules, behind the same Animator."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...runtime.animator import Animator
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.manifest import Motion
from ...runtime.support.errors import InputError
from ...runtime.support.plain_file import sha256_file

MOTIONS: tuple[Motion, Motion] = ("absolute", "relative")


@dataclass(frozen=True)
class Candidate:
    """A model under evaluation, opened once for absolute and once for relative motion.

    Attributes:
        size: side of the model's square frame, in pixels.
        channels: 1 (grey) or 3 (RGB).
        geometry: "half_pixel" or "fomm", see `metrics.warp_by_deformation`.
        facts: what it is, for the report: kind, name, digest, and so on.
        data: what it was trained on, see `trained_on.record`; of a bundle, the names alone.
    """

    absolute: Animator
    relative: Animator
    size: int
    channels: int
    geometry: str
    facts: dict[str, str]
    data: Sequence[Mapping[str, Any]] = ()


@contextmanager
def open_candidate(path: Path) -> Iterator[Candidate]:
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
        yield _bundle(path, stack) if path.is_dir() else _checkpoint(path, stack)


def _bundle(path: Path, stack: ExitStack) -> Candidate:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    absolute, relative = (
        stack.enter_context(Animator.open(bundle, motion=motion)) for motion in MOTIONS
    )
    facts = {
        "kind": "bundle",
        "path": str(path),
        # The manifest holds the digest of every other file, so its own stands for all.
        "manifest_sha256": bundle.digest,
        "name": manifest.name,
        "preset": manifest.preset,
        "precision": manifest.precision,
        "backend": absolute.session.backend.name,
        **_versions("onnxruntime"),
    }
    data = [{"name": credit.name} for credit in manifest.provenance.data]
    return _candidate(absolute, relative, facts, data)


def _checkpoint(path: Path, stack: ExitStack) -> Candidate:
    from ..checkpoint import load_checkpoint
    from ..torch_backend import open_session

    checkpoint = load_checkpoint(path)
    absolute, relative = (
        stack.enter_context(Animator(open_session(checkpoint), motion)) for motion in MOTIONS
    )
    facts = {
        "kind": "checkpoint",
        "path": str(path),
        "sha256": sha256_file(path),
        "step": str(checkpoint.step),
        **_versions("torch"),
    }
    return _candidate(absolute, relative, facts, checkpoint.data)


def _candidate(
    absolute: Animator,
    relative: Animator,
    facts: dict[str, str],
    data: Sequence[Mapping[str, Any]],
) -> Candidate:
    chain = absolute.session.chain
    image = chain.image
    return Candidate(absolute, relative, image.size, image.channels, chain.geometry, facts, data)


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
