"""What `sonomime bench compare` can run: a bundle on a backend, or a plain loop in torch.

cpu                     a backend, with the bundle of --bundle
openvino:bf16           in a precision
cpu@my-bundle           with another bundle; openvino:bf16@my-bundle too
torch@checkpoint.pt     the checkpoint in eager torch, on the CPU; without one untrained
fomm                    FOMM's own loop in eager torch, untrained, at the bundle's picture size
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..runtime.backends import ALIASES, BACKENDS, resolve_backend
from ..runtime.bundle.bundle import Bundle
from ..runtime.media.frames import Image
from ..runtime.support.dataclass_parser import nearest
from ..runtime.support.errors import ConfigError
from ..runtime.support.plain_file import sha256_file
from .opening import describe_bundle, open_animator

TORCH, FOMM = "torch", "fomm"


class Candidate(NamedTuple):
    """A candidate as it was written."""

    text: str
    name: str
    """A backend of the runtime, TORCH or FOMM."""
    precision: str | None
    place: Path | None
    """Folder of a bundle, or a checkpoint."""


class Runner(NamedTuple):
    """A candidate that runs."""

    animate: Callable[[Image], Image]
    """Driving frame to the model's frame, both uint8."""
    close: Callable[[], object]
    about: dict[str, Any]
    """What it is, as plain data."""
    model: str | None
    """Digest of what its weights are: frames of the same model can be compared. None: no other has
    them."""


def parse_candidate(text: str) -> Candidate:
    """NAME[:PRECISION][@PLACE].

    Raises:
        ConfigError: an unknown name, an empty part, a precision for torch, or a place for `fomm`.
    """
    said, at, place = text.partition("@")
    name, colon, precision = said.partition(":")
    if not name or (at and not place) or (colon and not precision):
        raise ConfigError(
            f"{text!r} is not a candidate", "write NAME, NAME:PRECISION or NAME:PRECISION@BUNDLE"
        )
    if name in (TORCH, FOMM):
        if precision:
            raise ConfigError(f"{text}: {name} runs in float32 alone", f"leave :{precision} out")
        if name == FOMM and place:
            raise ConfigError(
                f"{text}: fomm is the untrained preset and takes no file",
                f"write fomm, or torch@{place} to run a checkpoint",
            )
    elif ALIASES.get(name, name) not in BACKENDS:
        known = (*BACKENDS, *ALIASES, TORCH, FOMM)
        close = nearest(name, known)
        hint = f"did you mean {close!r}?" if close else "known: " + ", ".join(known)
        raise ConfigError(f"{text}: there is no backend {name!r}", hint)
    return Candidate(text, name, precision or None, Path(place) if place else None)


def open_candidate(
    candidate: Candidate, bundle: Bundle, threads: int, device: int | None,
    source: Image, reference: Image,
) -> Runner:  # fmt: skip
    """Open a candidate and give it its source and its reference, uint8 pictures.

    Args:
        bundle: of candidates that name none.
        threads: CPU threads.
        device: number of the GPU, for backends that take one.

    Raises:
        SonomimeError: its bundle, backend or checkpoint cannot be used.
    """
    if candidate.name in (TORCH, FOMM):
        return _in_torch(candidate, bundle, threads, source, reference)
    if candidate.place is not None:
        bundle = Bundle.open(candidate.place)
    gpu = device if takes_a_gpu(candidate.name) else None
    animator = open_animator(bundle, candidate.name, candidate.precision, threads, gpu)
    try:
        animator.set_source(source)
        animator.set_reference(reference)
    except BaseException:
        animator.close()
        raise
    running = animator.session.backend
    about = {
        "backend": running.name, "device": running.device, "bundle": describe_bundle(bundle),
        "precision": running.precision,
    }  # fmt: skip
    weights = bundle.manifest.provenance.checkpoint_sha256 or bundle.digest
    return Runner(animator.animate, animator.close, about, weights)


def takes_a_gpu(backend: str) -> bool:
    """Whether a backend may be given the number of a GPU."""
    try:
        resolve_backend(backend, 0)
    except ConfigError:
        return False
    return True


def _in_torch(
    candidate: Candidate, bundle: Bundle, threads: int, source: Image, reference: Image
) -> Runner:
    import torch

    from .eager import open_eager, open_fomm

    place = candidate.place
    fomm = candidate.name == FOMM
    eager = open_fomm(bundle, threads) if fomm else open_eager(bundle, place, threads)
    eager.begin(source, reference)
    about = {
        "backend": candidate.name, "device": f"CPU, torch {torch.__version__}", "precision": "fp32",
        "checkpoint": None if place is None else place.name,
    }  # fmt: skip
    weights = None if place is None else sha256_file(place)
    return Runner(eager.animate, lambda: None, about, weights)
