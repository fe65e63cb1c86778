"""The runtime beside eager torch, the same model in the same run; torch is needed only here."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from ..runtime.animator import Animator
from ..runtime.bundle import Bundle
from ..runtime.frames import Image
from .measure import summarise


class _Animates(Protocol):
    def animate(self, frame: Image, /) -> Image: ...


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

    from ..training.predictor import TorchAnimator

    torch.set_num_threads(threads)
    eager = TorchAnimator.open(checkpoint)
    per_block = max(2, frames // blocks)
    with Animator.open(bundle, "ort-cpu", threads=threads) as runtime:
        for animator in (runtime, eager):
            animator.set_source(source)
        apart = 0
        for frame in driving[:8]:  # the first becomes the reference of both; warms both up
            difference = runtime.animate(frame).astype(np.int16) - eager.animate(frame)
            apart = max(apart, int(np.abs(difference).max()))
        ours: list[list[float]] = []
        theirs: list[list[float]] = []
        for _ in range(blocks):
            ours.append(_block(runtime, driving, per_block))
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


def _block(animator: _Animates, driving: list[Image], count: int) -> list[float]:
    seconds = []
    animator.animate(driving[0])  # the other side's threads and caches have just been at work
    for frame in itertools.islice(itertools.cycle(driving), count):
        begin = perf_counter()
        animator.animate(frame)
        seconds.append(perf_counter() - begin)
    return seconds
