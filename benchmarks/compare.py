"""Candidates beside each other: `sonomime bench compare`.

They run in turns, in one process, block by block. Other work on the machine, heat and clocks then
slow all of them alike, and the ratio of two blocks of one turn says what the two differ by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ..runtime.backends import resolve_threads
from ..runtime.bundle.bundle import Bundle
from ..runtime.media.frames import Image
from ..runtime.support.errors import ConfigError
from ..runtime.support.progress import progress
from .candidates import Runner, open_candidate, parse_candidate
from .inputs import inputs
from .loops import Loop, closed_loop, in_ms
from .measure import environment, summarise
from .opening import describe_bundle
from .parity import differences
from .steadiness import steadiness

LEAST_BLOCKS = 6
"""With fewer the interval would not hold 95 %: all of five blocks are on one side of their true
median once in sixteen times."""
RESAMPLES, SEED, SHARE = 10_000, 0, 0.95
COMPARED = 8  # frames that are looked at, which also warm all up


def compare(
    candidates: Sequence[str],
    bundle: Path | None = None,
    blocks: int = 10,
    frames: int = 100,
    threads: int | None = None,
    device: int | None = None,
) -> dict[str, Any]:
    """Time candidates in turns, and compare all with the first one.

    Args:
        candidates: at least two; see candidates.py for how they are written.
        bundle: of those that name none; None is the default one.
        blocks: turns; with fewer than LEAST_BLOCKS there are no intervals.
        frames: of each candidate, shared out among its blocks, at least one for each.
        threads: CPU threads; None is the physical cores.
        device: number of the GPU, for candidates that run on one.

    Returns:
        Plain data: `candidates`, each with what it is, its closed loop's `milliseconds`, its
        samples by block and, where its weights are those of the first, how far its frames are from
        the first one's; and `ratios` to the first one, each as `ratio_of`.

    Raises:
        ConfigError: fewer than two candidates, one that is not known, or numbers out of range.
        SonomimeError: a bundle, backend or checkpoint cannot be used.
    """
    asked = [parse_candidate(text) for text in candidates]
    if len(asked) < 2:
        raise ConfigError("there is nothing to compare with", "give two candidates: cpu torch")
    if blocks < 1 or frames < blocks:
        raise ConfigError(
            f"{frames} frames cannot be shared out among {blocks} blocks: each needs one or more",
            f"give --frames {max(blocks, 1)} or more, or another number of --blocks (1 or more)",
        )
    count, per_block = resolve_threads(threads), -(-frames // blocks)
    opened, machine = Bundle.open(bundle), environment()
    source, driving = inputs(opened.manifest.image.channels)
    with ExitStack() as stack:
        runners = []
        for each in asked:
            runner = open_candidate(each, opened, count, device, source, driving[0])
            stack.callback(runner.close)
            runners.append(runner)
        apart = agreement(runners, driving[:COMPARED])
        loops = take_turns([runner.animate for runner in runners], driving, blocks, per_block)
    latency = [[loop.latency for loop in own] for own in loops]
    names = labels([each.text for each in asked])
    return {
        "scenario": "closed loop, in turns",
        "bundle": describe_bundle(opened),
        "threads": count,
        "environment": machine,
        "steadiness": steadiness(latency[0], machine["load_average"][0], machine["cores_logical"]),
        "candidates": [
            {
                "name": name, **runner.about, "agreement": close,
                "rate_hz": None, "dropped": 0, "finished": per_block * blocks,
                "milliseconds": summarise(list(chain(*own))),
                "samples_ms": [in_ms(block) for block in own],
            }
            for name, runner, close, own in zip(names, runners, apart, latency, strict=True)
        ],
        "ratios": [
            {"name": name, "to": names[0], **ratio_of(latency[0], own)}
            for name, own in zip(names[1:], latency[1:], strict=True)
        ],
    }  # fmt: skip


def labels(texts: Sequence[str]) -> list[str]:
    """The texts, those that came before with a number: the same candidate twice shows the noise."""
    return [
        text if text not in texts[:i] else f"{text} #{texts[:i].count(text) + 1}"
        for i, text in enumerate(texts)
    ]


def agreement(runners: Sequence[Runner], frames: Sequence[Image]) -> list[dict[str, Any] | None]:
    """How far the frames of each are from those of the first one; None where the weights are
    others, and for the first itself."""
    made = [[runner.animate(frame) for frame in frames] for runner in runners]
    first = runners[0].model
    return [
        differences(zip(own, made[0], strict=True))
        if i and runner.model is not None and runner.model == first
        else None
        for i, (runner, own) in enumerate(zip(runners, made, strict=True))
    ]


def take_turns(
    animates: Sequence[Callable[[Image], object]],
    driving: Sequence[Image],
    blocks: int,
    per_block: int,
    clock: Callable[[], float] = perf_counter,
) -> list[list[Loop]]:
    """Time all in turns. Each block begins with a frame that is not timed, since another one has
    just used the caches and the threads; every turn begins with another one; in a turn all get the
    same frames.

    Returns:
        The loops of each, block by block.
    """
    found: list[list[Loop]] = [[] for _ in animates]
    for turn in progress(range(blocks), label="blocks"):
        for shift in range(len(animates)):
            which = (turn + shift) % len(animates)
            animate, first = animates[which], turn * per_block
            animate(driving[(first - 1) % len(driving)])

            def step(
                number: int, animate: Callable[[Image], object] = animate, first: int = first
            ) -> None:
                animate(driving[(first + number) % len(driving)])

            found[which].append(closed_loop(step, per_block, clock=clock))
    return found


def ratio_of(first: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How many times as long the other one takes.

    In each block the two medians are divided; the ratio is the median of these over the blocks. Its
    interval is that of a bootstrap (percentiles) over the blocks, with a fixed seed.

    Args:
        first, other: seconds, by blocks that ran in the same turns.

    Returns:
        `ratio`, `low` and `high` (None below LEAST_BLOCKS), `share` that the interval should hold,
        `blocks`, and the ratio of every block.
    """
    ratios = np.array([median(b) / median(a) for a, b in zip(first, other, strict=True)])
    low = high = None
    if len(ratios) >= LEAST_BLOCKS:
        drawn = np.random.default_rng(SEED).integers(len(ratios), size=(RESAMPLES, len(ratios)))
        ends = 50 * (1 - SHARE), 50 * (1 + SHARE)
        low, high = np.percentile(np.median(ratios[drawn], axis=1), ends).tolist()
    return {
        "ratio": float(np.median(ratios)), "low": low, "high": high, "share": SHARE,
        "blocks": len(ratios), "ratio_of_blocks": ratios.tolist(),
    }  # fmt: skip
