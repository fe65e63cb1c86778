"""Running a trainer: cadence, signals, time limit, log and pictures."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from ..runtime.support.errors import ConfigError, OutputError
from .checkpoint import load_checkpoint
from .logbook import Logbook
from .threads import quicker_threads
from .trainer import Trainer


@contextmanager
def until_told() -> Iterator[Callable[[], bool]]:
    """Yields a function: did SIGTERM or Ctrl-C ask to stop? A second Ctrl-C interrupts at once.

    Only the main thread may handle signals; in any other the answer is always no.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if told and number == signal.SIGINT:
            raise KeyboardInterrupt
        told.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Numbers next to 0 are 0 in this thread: they cost a CPU a hundred times as much as others,
    and gradients through a softmax are full of them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def train(
    trainer: Trainer,
    resume: bool,
    max_minutes: float | None,
    report: Callable[[str], None],
    start: Path | None = None,
) -> Path:
    """Train until ``max_steps``, ``max_minutes``, SIGTERM or Ctrl-C (these two in the main thread).

    Every end writes ``RUN/checkpoint.pt``.

    Args:
        max_minutes: of everything, the estimate of BatchNorm's statistics at the end included.
            Where that would take more than half of them, it sees fewer batches.
        report: takes lines for the user.
        start: a checkpoint whose weights a new run begins with; a run that is resumed has its own.

    Raises:
        OutputError: RUN already holds a run and ``resume`` is false.
        ConfigError: BatchNorm is to be frozen in a run that starts from nothing.
    """
    path = trainer.run / "checkpoint.pt"
    if resume and path.exists():
        trainer.load(load_checkpoint(path))
        report(f"resuming at step {trainer.step}")
    elif path.exists():
        raise OutputError(
            f"{path}: this folder already holds a run", "add --resume, or choose another -o"
        )
    else:
        if resume:
            report(f"{path}: there is none yet; starting from the beginning")
        if start is not None:
            fresh = trainer.start_from(load_checkpoint(start))
            report(f"starting from the weights of {start}")
            if fresh:
                report(f"{start}: {fresh}")
        elif trainer.config.train.batchnorm == "frozen":
            raise ConfigError(
                "train.batchnorm=frozen keeps the statistics of other weights: there are none",
                "add --from CHECKPOINT, or train with train.batchnorm=batch",
            )
    train_config = trainer.config.train
    limit = math.inf if max_minutes is None else 60 * max_minutes
    deadline = time.monotonic() + limit

    def time_is_up() -> bool:
        # The rest is for BatchNorm's statistics; if the limit is too short, they get half of it.
        reserved = min(trainer.seconds_to_estimate(), limit / 2)
        return time.monotonic() + reserved >= deadline

    saved = trainer.step if path.exists() else -1
    with (
        until_told() as told,
        without_denormals(),
        quicker_threads(trainer, report),
        Logbook(trainer.run, trainer.step) as book,
    ):
        since, mark = trainer.step, time.monotonic()
        while trainer.step < train_config.max_steps and not time_is_up() and not told():
            rate, result = trainer.learning_rate(), trainer.train_step()
            step = trainer.step
            if step % train_config.log_every == 0 or step == 1:
                seconds = (time.monotonic() - mark) / (step - since)
                values = {name: loss.item() for name, loss in result.losses.items()}
                book.write(
                    step,
                    {
                        **values,
                        "l1": result.l1,
                        "hold": result.hold,
                        "rate": rate,
                        "seconds_per_step": seconds,
                    },
                )
                left = (train_config.max_steps - step) * seconds + trainer.seconds_to_estimate()
                left = max(0.0, min(left, deadline - time.monotonic())) / 60
                report(
                    f"step {step}/{train_config.max_steps}  l1 {result.l1:.4f} "
                    f"(hold {result.hold:.4f})  loss {sum(values.values()):.3f}  "
                    f"{seconds:.2f} s/step  {left:.0f} min left"
                )
                since, mark = step, time.monotonic()
            if step % train_config.picture_every == 0:
                book.picture(step, trainer.picture(step))
            if step % train_config.checkpoint_every == 0:
                _save(trainer, path, deadline, report)
                saved = step
        if saved != trainer.step:
            if told():
                report(f"told to stop at step {trainer.step}: finishing; Ctrl-C leaves at once")
            _save(trainer, path, deadline, report)
        if trainer.step > 0:
            book.picture(trainer.step, trainer.picture(trainer.step))
    reason = (
        "told to stop"
        if told()
        else "done"
        if trainer.step >= train_config.max_steps
        else "time is up"
    )
    report(f"{reason} at step {trainer.step}: {path}")
    return path


def _save(trainer: Trainer, path: Path, deadline: float, report: Callable[[str], None]) -> None:
    """Save with BatchNorm's statistics estimated, on as many batches as there is time for."""
    wanted = trainer.batches_to_estimate()
    if wanted:
        # Whoever sends SIGTERM may not wait until they are.
        trainer.save(path)
    seen = trainer.estimate_batchnorm(deadline)
    if seen < wanted:
        report(f"time is up: BatchNorm's statistics are those of {seen} batches, not of {wanted}")
    trainer.save(path)
