"""Compare a bundle's golden frame with what this machine and backend make."""

from __future__ import annotations

from typing import NamedTuple

from .bundle.bundle import Bundle
from .bundle.manifest import Manifest
from .media.pixels import Image, levels_apart, psnr, to_image, to_planes
from .readers.stills import read_image
from .session import Session
from .support.errors import BundleError

LEAST_PSNR = 45.0
"""dB of the golden frame, which another precision than the bundle's has to reach: differences then
are below what is seen (docs/results)."""


class Agreement(NamedTuple):
    """How far a frame is from the golden one."""

    levels: int
    psnr_db: float

    def is_right(self, manifest: Manifest, precision: str) -> bool:
        """Whether a backend that computes in this precision makes the frame well enough."""
        if precision != manifest.precision:
            return self.psnr_db >= LEAST_PSNR
        # A little more is allowed than at export, since CPUs add up in different orders.
        levels, decibels = manifest.tolerances.frame_levels, manifest.tolerances.psnr_db
        few = levels is None or self.levels <= levels + 1
        return few and (decibels is None or self.psnr_db >= decibels - 1)


def golden_frame(session: Session, bundle: Bundle) -> Image:
    """The bundle's golden frame as this session makes it, uint8 (S, S) or (S, S, 3)."""
    golden = bundle.manifest.golden
    if session.has_control("relative"):
        session.set_control("relative", float(golden.motion == "relative"))
    source, reference, driving = (
        to_planes(read_image(bundle.folder / each.file))
        for each in (golden.source, golden.reference, golden.driving)
    )
    session.set_source(source)
    session.set_reference(reference)
    return to_image(session.animate(driving))


def agreement(made: Image, bundle: Bundle) -> Agreement:
    """How far a frame, uint8 (S, S) or (S, S, 3), is from the golden one.

    Raises:
        BundleError: the golden one has another size.
    """
    wanted = read_image(bundle.folder / bundle.manifest.golden.output.file)
    if made.shape != wanted.shape:
        raise BundleError(f"{bundle.folder}: the golden output has another size")
    return Agreement(levels_apart(made, wanted), psnr(made, wanted))
