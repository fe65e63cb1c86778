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
    """A model under evaluation."""

    own: Animator  # of a clip's own still: absolute motion; relative where there is no absolute one
    other: Animator  # of another subject's still: relative motion
    facts: dict[str, str]  # for the report: kind, name, digest, and so on
    data: Sequence[Mapping[str, Any]] = ()  # see `trained_on.record`; of a bundle the names alone

    @property
    def chain(self) -> Chain:
        """What both animators run, each its own."""
        return self.own.session.chain


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
        animators, facts, data, library = (_bundle if path.is_dir() else _checkpoint)(path)
        own, other = (stack.enter_context(animator) for animator in animators)
        facts |= {"backend": own.session.backend.name, **_versions(library)}
        yield Candidate(own, other, {**facts, "own_motion": own.motion}, data)


Opened = tuple[Iterator[Animator], dict[str, str], Sequence[Mapping[str, Any]], str]
"""Animators of own and of other, facts, data, the library that computes."""


def _bundle(path: Path) -> Opened:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    facts = {
        "kind": "bundle",
        "path": str(path),
        "manifest_sha256": bundle.digest,
        "name": manifest.name,
        "preset": manifest.preset,
        "precision": manifest.precision,
    }
    animators = (Animator.open(bundle, motion=motion) for motion in _motions(manifest))
    return animators, facts, [{"name": c.name} for c in manifest.provenance.data], "onnxruntime"


def _checkpoint(path: Path) -> Opened:
    from ..checkpoint import load_checkpoint
    from ..torch_backend import open_session

    checkpoint = load_checkpoint(path)
    facts = {
        "kind": "checkpoint",
        "path": str(path),
        "sha256": sha256_file(path),
        "step": str(checkpoint.step),
    }
    sessions = [open_session(checkpoint) for _ in range(2)]
    motions = _motions(sessions[0].chain)
    return map(Animator, sessions, motions), facts, checkpoint.data, "torch"


def _motions(chain: Chain) -> tuple[Motion, Motion]:
    """The motion of `own` and that of `other`."""
    there = chain.motions()
    return "absolute" if "absolute" in there else "relative", there[0]


def _versions(library: str) -> dict[str, str]:
    """Versions of Python, this package and the libraries that compute the numbers."""
    from ... import __version__

    versions = {"python": platform.python_version(), "sonomime": __version__}
    for name in ("numpy", "opencv-python-headless", "pillow", library):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"  # e.g. another distribution of the same module
    return versions
