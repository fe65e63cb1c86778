"""How many threads torch uses on a CPU: one or all, whichever is quicker at the moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from .trainer import Trainer

PAIRS = 4  # to measure with; a large model's whole batches take minutes
ROUNDS = 3  # the first, in which every layer is prepared, is not counted
HOPELESS = 3  # times as slow as one thread: not worth another round


@contextmanager
def quicker_threads(trainer: Trainer, report: Callable[[str], None]) -> Iterator[None]:
    """Let torch use one thread or all of them, whichever is quicker at the moment: threads wait for
    the slowest at every layer, so all may take several times as long where other programs run.

    The trainer is not changed. Nothing is measured where OMP_NUM_THREADS is set, where torch has
    one thread, on a GPU, with several processes, and where fewer steps are left than measuring
    takes.
    """
    every = torch.get_num_threads()
    left = trainer.config.train.max_steps - trainer.step
    given = os.environ.get("OMP_NUM_THREADS")
    alone = trainer.device.type == "cpu" and trainer.processes.count == 1
    if given or every == 1 or not alone or left <= 2 * ROUNDS:
        yield
        return
    try:
        seconds = step_seconds(trainer, every)
        chosen = min(seconds, key=lambda count: seconds[count])
        report(
            f"threads: {chosen}. A step of at most {PAIRS} pairs takes {seconds[1]:.2f} s with 1, "
            f"{seconds[every]:.2f} s with {every}; OMP_NUM_THREADS=N takes N without measuring"
        )
        torch.set_num_threads(chosen)
        yield
    finally:
        torch.set_num_threads(every)


def step_seconds(trainer: Trainer, every: int) -> dict[int, float]:
    """Seconds of a training step by number of threads, for 1 and ``every``: the quickest of several
    that a copy of the trainer takes on pairs of one part of a batch."""
    config = trainer.config
    batch = trainer.batch(trainer.step).parts(config.train.accumulate)[0].map(lambda x: x[:PAIRS])
    config = replace(config, train=replace(config.train, accumulate=1))
    twin = Trainer(config, lambda step: batch, trainer.run, [], [])
    found: dict[int, list[float]] = {1: [], every: []}
    for _ in range(ROUNDS):
        for count, seconds in found.items():
            torch.set_num_threads(count)
            start = time.perf_counter()
            twin.train_step()
            seconds.append(time.perf_counter() - start)
        if found[every][-1] > HOPELESS * found[1][-1]:
            break
    return {count: min(seconds[1:] or seconds) for count, seconds in found.items()}
