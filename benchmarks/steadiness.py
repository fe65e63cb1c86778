"""Was the machine steady while it was measured? If not, its times say little about the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

BLOCKS = 10
LEAST_BLOCKS = 4
LEAST_IN_A_BLOCK = 5
MOST_SPREAD = 0.10
"""How far the medians of blocks may be apart, as a share of their own median."""
MOST_LOAD = 0.5
"""The share of the cores that may have been busy before."""


def in_blocks(samples: Sequence[float]) -> list[Sequence[float]]:
    """Samples in up to BLOCKS equal runs, in their order, the remainder left out; none from too
    few samples."""
    count = min(BLOCKS, len(samples) // LEAST_IN_A_BLOCK)
    if count < LEAST_BLOCKS:
        return []
    size = len(samples) // count
    return [samples[i * size : (i + 1) * size] for i in range(count)]


def steadiness(blocks: Sequence[Sequence[float]], load: float, cores: int) -> dict[str, Any]:
    """Whether the machine kept its speed, as plain data.

    Args:
        blocks: seconds of the same work, in runs, one after the other; none if too few are known.
        load: processes that wanted to run before, as the load average of the last minute.
        cores: of the machine, as the load counts them.

    Returns:
        `unsteady`, and `why`: sentences, none if it was steady; `block_medians_ms`,
        `block_spread` (largest minus smallest of them, as a share of their median; None without
        blocks), `load_average_before` and `cores`.
    """
    medians = [1e3 * median(block) for block in blocks]
    spread = (max(medians) - min(medians)) / median(medians) if medians else None
    why = []
    if load > MOST_LOAD * cores:
        why.append(f"before, other work kept {load:.1f} of {cores} cores busy")
    if spread is not None and spread > MOST_SPREAD:
        low, high = min(medians), max(medians)
        why.append(f"the median of a block of frames went from {low:.1f} to {high:.1f} ms")
    return {
        "unsteady": bool(why), "why": why, "block_medians_ms": medians, "block_spread": spread,
        "load_average_before": load, "cores": cores,
    }  # fmt: skip


def warnings_of(found: dict[str, Any]) -> Iterator[str]:
    """A plain warning, if there is something to warn of."""
    if found["unsteady"]:
        why = "; ".join(found["why"])
        yield f"warning: the machine was not steady: {why}. Measure again when it is quiet."
