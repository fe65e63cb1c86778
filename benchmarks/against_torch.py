"""The runtime beside eager torch, the same model in the same run; torch is needed only here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from ..runtime.animator import Animator
from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.manifest import FRAME
from ..runtime.media.frames import Image, letterbox, to_channels
from ..runtime.media.pixels import levels_apart, to_image
from .measure import summarise


def compare_with_torch(
    bundle: Bundle,
    checkpoint: Path,
    threads: int,
    source: Image,
    driving: list[Image],
    frames: int,
    blocks: int,
) -> dict[str, Any]:
    """Time both in interleaved blocks, so that what else the machine does meets both alike.

    Args:
        bundle: the bundle exported from `checkpoint`.
        checkpoint: a training checkpoint.
        threads: CPU threads for both.
        source: the source image.
        driving: driving frames, repeated as needed.
        frames: frames of each side, divided among the blocks.
        blocks: how often the sides take turns.

    Returns:
        Plain data: summaries of both in ms, the ratio of medians torch / runtime, its range over
        blocks, and the largest difference of the frames in grey levels.

    Raises:
        CheckpointError: the checkpoint cannot be used.
    """
    import torch

    from ..training.checkpoint import load_checkpoint
    from ..training.models.families import family_of

    torch.set_num_threads(threads)
    model = load_checkpoint(checkpoint).model()
    oracle = family_of(model.config).oracle(model)
    image = bundle.manifest.image

    def fit(frame: Image) -> Image:
        return letterbox(to_channels(frame, image.channels), image.size)[0]

    def eager(frame: Image) -> Image:
        return to_image(oracle.animate(fit(frame))[FRAME])

    per_block = max(2, frames // blocks)
    with Animator.open(bundle, "ort-cpu", threads=threads) as animator:
        animator.set_source(source)
        oracle.set_source(fit(source), fit(driving[0]))
        # The first becomes the reference of both; warms both up.
        apart = max(levels_apart(animator.animate(frame), eager(frame)) for frame in driving[:8])
        ours: list[list[float]] = []
        theirs: list[list[float]] = []
        for _ in range(blocks):
            ours.append(_block(animator.animate, driving, per_block))
            theirs.append(_block(eager, driving, per_block))
    ratios = [median(b) / median(a) for a, b in zip(ours, theirs, strict=True)]
    runtime_all, torch_all = list(itertools.chain(*ours)), list(itertools.chain(*theirs))
    return {
        "runtime": asdict(summarise(runtime_all)),
        "torch": asdict(summarise(torch_all)),
        "ratio": median(torch_all) / median(runtime_all),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "blocks": blocks,
        "levels_apart": apart,
        "checkpoint": checkpoint.name,
    }


def _block(animate: Callable[[Image], Image], driving: list[Image], count: int) -> list[float]:
    seconds = []
    animate(driving[0])  # the other side's threads and caches have just been at work
    for frame in itertools.islice(itertools.cycle(driving), count):
        begin = perf_counter()
        animate(frame)
        seconds.append(perf_counter() - begin)
    return seconds
