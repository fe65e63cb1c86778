"""How far the frames of two ways are apart: a time is worth nothing if the picture is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ..runtime.animator import Animator
from ..runtime.bundle.bundle import Bundle
from ..runtime.media.frames import Image
from ..runtime.media.pixels import levels_apart, psnr
from ..runtime.support.errors import BackendError
from .measure import MOST_DB
from .opening import open_animator

Animate = Callable[[Image], Image]


def differences(pairs: Iterable[tuple[Image, Image]]) -> dict[str, Any]:
    """Of pairs of frames, uint8 and of one shape: how many, the lowest PSNR in dB (at most
    MOST_DB, which equal frames have) and the most grey levels that a pixel differs by."""
    count, lowest, most = 0, math.inf, 0
    for found, wanted in pairs:
        count += 1
        lowest, most = min(lowest, psnr(found, wanted)), max(most, levels_apart(found, wanted))
    return {"frames": count, "psnr_db": min(lowest, MOST_DB), "levels_apart": most}


def parity(
    animator: Animator, bundle: Bundle, threads: int, source: Image, driving: list[Image]
) -> dict[str, Any]:
    """An opened Animator beside ONNX Runtime on the CPU, on the same frames, in the same order.

    Returns:
        `reference` in words, and `differences`; or `absent`, why there is nothing to compare with.

    Raises:
        BackendError: a stage failed.
    """
    try:
        reference = open_animator(bundle, "ort-cpu", threads=threads)
    except BackendError as error:
        return {"absent": error.message}
    with reference:
        for each in (animator, reference):
            each.reset()
            each.set_source(source)
        pairs = ((animator.animate(frame), reference.animate(frame)) for frame in driving)
        found = differences(pairs)
    return {"reference": f"ort-cpu, bundle in {bundle.manifest.precision}", **found}
