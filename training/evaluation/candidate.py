"""What is evaluated: a bundle or a checkpoint, opened as two animators."""

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
from ...runtime.bundle.manifest import Chain, Motion
from ...runtime.support.errors import InputError
from ...runtime.support.plain_file import sha256_file


@dataclass(frozen=True)
class Candidate:
    """A model under evaluation.

    Attributes:
        own: animates a clip's own still: absolute motion, or relative to the still where the model
            has no absolute one.
        other: animates another subject's still: relative motion.
        size: side of the model's square frame, in pixels.
        channels: 1 (grey) or 3 (RGB).
        geometry: "half_pixel" or "fomm", see `metrics.deformation_flow`.
        facts: for the report: kind, name, digest, and so on.
        data: what it was trained on, see `trained_on.record`; of a bundle, the names alone.
        can_align: whether source and reference can be aligned.
        can_align_itself: whether it finds an alignment without given landmarks.
        has_layers: whether frames can be composed at the source's own size.
    """

    own: Animator
    other: Animator
    size: int
    channels: int
    geometry: str
    facts: dict[str, str]
    data: Sequence[Mapping[str, Any]] = ()
    can_align: bool = False
    can_align_itself: bool = False
    has_layers: bool = False


@contextmanager
def open_candidate(path: Path) -> Iterator[Candidate]:
    """Open a bundle (a folder) or a checkpoint (a file).

    Raises:
        InputError: the path does not exist, or is a folder without a manifest.
        BundleError, CheckpointError, BackendError: it cannot be opened.
    """
    hint = "give a checkpoint or a bundle"
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder", hint)
    if path.is_dir() and not (path / "manifest.json").is_file():
        if (path / "checkpoint.pt").is_file():
            hint = f"the run's checkpoint is {path / 'checkpoint.pt'}"
        raise InputError(f"{path}: is not a bundle (it has no manifest.json)", hint)
    with ExitStack() as stack:
        yield _bundle(path, stack) if path.is_dir() else _checkpoint(path, stack)


def _bundle(path: Path, stack: ExitStack) -> Candidate:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    own, other = (
        stack.enter_context(Animator.open(bundle, motion=motion)) for motion in _motions(manifest)
    )
    facts = {
        "kind": "bundle",
        "path": str(path),
        "manifest_sha256": bundle.digest,
        "name": manifest.name,
        "preset": manifest.preset,
        "precision": manifest.precision,
        "backend": own.session.backend.name,
        **_versions("onnxruntime"),
    }
    return _candidate(own, other, facts, [{"name": c.name} for c in manifest.provenance.data])


def _checkpoint(path: Path, stack: ExitStack) -> Candidate:
    from ..checkpoint import load_checkpoint
    from ..torch_backend import open_session

    checkpoint = load_checkpoint(path)
    sessions = [open_session(checkpoint) for _ in range(2)]
    own, other = (
        stack.enter_context(Animator(session, motion))
        for session, motion in zip(sessions, _motions(sessions[0].chain), strict=True)
    )
    facts = {
        "kind": "checkpoint",
        "path": str(path),
        "sha256": sha256_file(path),
        "step": str(checkpoint.step),
        **_versions("torch"),
    }
    return _candidate(own, other, facts, checkpoint.data)


def _motions(chain: Chain) -> tuple[Motion, Motion]:
    """The motion of `own` and that of `other`."""
    there = chain.motions()
    return "absolute" if "absolute" in there else "relative", there[0]


def _candidate(
    own: Animator, other: Animator, facts: dict[str, str], data: Sequence[Mapping[str, Any]]
) -> Candidate:
    session = own.session
    return Candidate(
        own,
        other,
        session.chain.image.size,
        session.chain.image.channels,
        session.chain.geometry,
        {**facts, "own_motion": own.motion},
        data,
        can_align=session.can_align,
        can_align_itself=session.can_register or bool(session.landmarks),
        has_layers=session.chain.layers is not None,
    )


def _versions(*more: str) -> dict[str, str]:
    """Versions of Python, this package and the libraries that compute the numbers."""
    from ... import __version__

    versions = {"python": platform.python_version(), "sonomime": __version__}
    for name in ("numpy", "opencv-python-headless", "pillow", *more):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"  # e.g. another distribution of the same module
    return versions
