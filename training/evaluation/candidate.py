"""What is evaluated: a bundle or a checkpoint, opened as two animators; what it was trained on."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ... import __version__
from ...runtime.animator import Animator
from ...runtime.backends import open_backend
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.manifest import Motion
from ...runtime.session import Session
from ...runtime.support.errors import InputError
from ...runtime.support.plain_file import sha256_file
from ...runtime.support.printable import printable
from ..checkpoint import load_checkpoint, record, recorded
from ..data.dataset import Clip
from ..torch_backend import open_session


@dataclass(frozen=True)
class Candidate:
    """A model under evaluation."""

    own: Animator  # of a clip's own still: absolute motion; relative where there is no absolute one
    other: Animator  # of another subject's still: relative motion
    facts: dict[str, str]  # for the report: kind, name, digest, and so on
    data: Sequence[Mapping[str, Any]] = ()  # see `checkpoint.record`; of a bundle the names alone


@contextmanager
def open_candidate(
    path: Path, backend: str = "auto", threads: int | None = None
) -> Iterator[Candidate]:
    """Open a bundle (a folder) or a checkpoint (a file).

    Args:
        backend, threads: of a bundle, as for `open_backend`.

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
    data: Sequence[Mapping[str, Any]]
    if path.is_dir():
        bundle = Bundle.open(path)
        manifest, library = bundle.manifest, "onnxruntime"
        data = [{"name": clips.name} for clips in manifest.provenance.data]
        facts = {"kind": "bundle", "path": str(path), "manifest_sha256": bundle.digest}
        facts |= {name: getattr(manifest, name) for name in ("name", "preset", "precision")}
        sessions = [Session(manifest, open_backend(backend, bundle, threads)) for _ in range(2)]
    else:
        checkpoint, library = load_checkpoint(path), "torch"
        data, step = checkpoint.data, str(checkpoint.step)
        facts = {"kind": "checkpoint", "path": str(path), "sha256": sha256_file(path), "step": step}
        sessions = [open_session(checkpoint) for _ in range(2)]
    motions = sessions[0].chain.motions()
    asked: list[Motion] = ["absolute" if "absolute" in motions else "relative", motions[0]]
    facts |= {"backend": sessions[0].backend.name, "python": platform.python_version()}
    facts |= {"sonomime": __version__, **dict(_versions(library)), "own_motion": asked[0]}
    with ExitStack() as stack:
        own, other = (stack.enter_context(a) for a in map(Animator, sessions, asked))
        yield Candidate(own, other, facts, data)


def _versions(library: str) -> Iterator[tuple[str, str]]:
    """Versions of the libraries that compute the numbers."""
    for name in ("numpy", "opencv-python-headless", "pillow", library):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "unknown"  # e.g. another distribution of the same module


def training_facts(
    candidate: Candidate, folders: Sequence[Path], clips: Sequence[Clip]
) -> tuple[dict[str, str], list[str]]:
    """What the model was trained on, and how much of that is evaluated; printed to stderr too.

    Returns:
        facts for the report; warnings about evaluated clips and subjects that it was trained on.
    """
    data, warnings = candidate.data, []
    facts = {"trained_on": ", ".join(map(_described, data)) or "not recorded"}
    print(f"the model was trained on: {facts['trained_on']}", file=sys.stderr)
    unknown = [_name(entry) for entry in data if "clips" not in entry]
    trained, evaluated = recorded(data), recorded(record(folders, clips))
    for what, known, names in zip(trained._fields, trained, evaluated, strict=True):
        # One may be named from a folder further up.
        ends = [f"/{name}" for name in known]
        both = sum(any(f"/{n}".endswith(e) or e.endswith(f"/{n}") for e in ends) for n in names)
        count = f"{both} of {len(names)}"
        said = f"{count}, by name"
        if both:
            named = "are named like one that the model was trained on"
            warnings.append(f"{count} evaluated {what} {named}")
        if len(unknown) == len(data):
            bundle = candidate.facts["kind"] == "bundle"
            said = "a bundle does not record its training clips" if bundle else "not recorded"
        elif unknown:
            said += f", not recorded for {', '.join(unknown)}"
        facts[f"evaluated_{what}_trained_on"] = said
        print(f"evaluated {what} that it was trained on: {said}", file=sys.stderr)
    return facts, warnings


def _described(entry: Mapping[str, Any]) -> str:
    counts = "({} clips of {} subjects)".format(*map(len, recorded([entry])))
    return f"{_name(entry)} {counts}" if "clips" in entry else _name(entry)


def _name(entry: Mapping[str, Any]) -> str:
    return printable(str(entry.get("name", "?")))
