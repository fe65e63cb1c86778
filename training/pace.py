"""How fast a run is, how long it waits for its batches, and how long it will still take."""

from __future__ import annotations

import time
from typing import NamedTuple

from .distributed import Processes
from .models.base import StepResult
from .run_report.page import duration
from .trainer import Trainer

SIGHT = 5  # steps after which the speed is told: the first ones prepare every layer
WAITING = 0.05  # share of the time from which waiting for batches is told


class Lap(NamedTuple):
    """Means over the steps since the lap before."""

    seconds_per_step: float
    waiting: float  # share of the time spent waiting for the batch

    def __str__(self) -> str:
        words = f"{self.seconds_per_step:.2f} s/step"
        return f"{words} ({self.waiting:.0%} for data)" if self.waiting > WAITING else words


class Pace:
    """Measures a run from the outside.

    Args:
        limit: seconds that the run may take from now on.
    """

    def __init__(self, trainer: Trainer, limit: float) -> None:
        self._trainer, self._limit = trainer, limit
        self.deadline = time.monotonic() + limit
        self.start()

    def start(self) -> None:
        """Count laps from here."""
        self._seconds, self._first = 0.0, self._trainer.step
        self._begin, self._lap = time.monotonic(), self._mark()

    def _mark(self) -> tuple[int, float, float]:
        return self._trainer.step, time.monotonic(), self._trainer.waited

    def time_is_up(self) -> bool:
        """Whether the rest of the time is for BatchNorm's statistics; if the limit is too short,
        they get half of it."""
        reserved = min(self._trainer.seconds_to_estimate(), self._limit / 2)
        return time.monotonic() + reserved >= self.deadline

    def lap(self) -> Lap:
        """The speed since the last call."""
        (step, begin, waited), self._lap = self._lap, (now := self._mark())
        self._seconds = (now[1] - begin) / max(1, now[0] - step)
        return Lap(self._seconds, (now[2] - waited) / max(1e-9, now[1] - begin))

    def left(self, seconds: float | None = None) -> float:
        """Seconds until the run ends: by its steps, each of them as long as those of the last lap,
        and the estimates of BatchNorm with its checkpoints; or by its limit."""
        train, trainer = self._trainer.config.train, self._trainer
        steps = train.max_steps - trainer.step
        saves = train.max_steps // train.checkpoint_every - trainer.step // train.checkpoint_every
        saves += train.max_steps % train.checkpoint_every > 0
        whole = steps * (self._seconds if seconds is None else seconds)
        whole += saves * trainer.seconds_to_estimate()
        return max(0.0, min(whole, self.deadline - time.monotonic()))

    def first_sight(self) -> str:
        """Once, when the first steps are done: the speed and the time that all will take."""
        done = self._trainer.step - self._first
        if done == 1:
            self._begin = time.monotonic()
        if done != SIGHT:
            return ""
        seconds = (time.monotonic() - self._begin) / (done - 1)
        pairs = self._trainer.config.train.batch_size / max(1e-9, seconds)
        return f"{pairs:.3g} pairs a second: about {duration(self.left(seconds))} from here"


def mean_figures(processes: Processes, result: StepResult) -> tuple[dict[str, float], float, float]:
    """Losses by name, l1 and hold: means over the processes. A loss that one lacks counts as zero
    there."""
    mine = {name: loss.item() for name, loss in result.losses.items()}
    every = processes.gathered((mine, result.l1, result.hold))
    names = dict.fromkeys(name for losses, _, _ in every for name in losses)
    count = processes.count
    losses = {name: sum(each.get(name, 0.0) for each, _, _ in every) / count for name in names}
    _, l1, hold = zip(*every, strict=True)
    return losses, sum(l1) / count, sum(hold) / count
