"""Running a trainer: cadence, signals, time limit, threads, log and pictures."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

import torch

from ..runtime.support.atomic_files import locked
from ..runtime.support.errors import ConfigError, OutputError
from ..runtime.support.process import Terminated
from .checkpoint import load_checkpoint
from .logbook import Logbook
from .run_report.page import PAGE, write_report
from .trainer import Trainer
from .watch import Watch

Report = Callable[[str], None]

PAIRS = 4  # to measure with; a large model's whole batches take minutes
ROUNDS = 3  # the first, in which every layer is prepared, is not counted
HOPELESS = 3  # times as slow as one thread: not worth another round


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list that takes the numbers of SIGTERM, SIGHUP and Ctrl-C as they arrive, in the
    main thread; in others it stays empty. A second Ctrl-C interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {}
    with suppress(ValueError):  # not the main thread
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP is under nohup
                before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(
    trainer: Trainer,
    resume: bool,
    max_minutes: float | None,
    report: Report,
    start: Path | None = None,
) -> Path:
    """Train until ``max_steps``, ``max_minutes`` or a signal. Every end writes RUN/checkpoint.pt.

    Args:
        max_minutes: of everything, the estimate of BatchNorm's statistics at the end included.
            Where that would take more than half of the time, it sees fewer batches.
        report: takes lines for the user.
        start: a checkpoint whose weights a new run begins with; a resumed run has its own.

    Raises:
        OutputError: RUN already holds a run and ``resume`` is false; another process writes there.
        ConfigError: BatchNorm is to be frozen in a run that starts from nothing.
        Terminated: after SIGTERM or SIGHUP, when all is saved; KeyboardInterrupt after Ctrl-C.
    """
    path = trainer.run / "checkpoint.pt"
    settings = trainer.config.train
    limit = math.inf if max_minutes is None else 60 * max_minutes
    deadline = time.monotonic() + limit

    def time_is_up() -> bool:
        # The rest is for BatchNorm's statistics; if the limit is too short, they get half of it.
        reserved = min(trainer.seconds_to_estimate(), limit / 2)
        return time.monotonic() + reserved >= deadline

    with locked(trainer.run):
        _begin(trainer, path, resume, start, report)
        saved = trainer.step if path.exists() else -1
        with stop_signals() as received, ExitStack() as stack:
            # Denormal numbers count as 0 in this thread: a CPU is a hundred times slower with them,
            # and gradients through a softmax are full of them.
            stack.callback(torch.set_flush_denormal, False)
            torch.set_flush_denormal(True)
            stack.enter_context(quicker_threads(trainer, report))
            book = Logbook(trainer.run, trainer.step, Watch(trainer.config), report)
            book.begin(trainer.facts(), trainer.step)
            since, mark = trainer.step, time.monotonic()
            while trainer.step < settings.max_steps and not time_is_up() and not received:
                rate, result = trainer.learning_rate(), trainer.train_step()
                step = trainer.step
                if step % settings.log_every == 0 or step == 1:
                    seconds = (time.monotonic() - mark) / (step - since)
                    losses = {name: loss.item() for name, loss in result.losses.items()}
                    figures = {"l1": result.l1, "hold": result.hold, "rate": rate}
                    book.write(step, {**losses, **figures, "seconds_per_step": seconds})
                    left = (settings.max_steps - step) * seconds + trainer.seconds_to_estimate()
                    left = max(0.0, min(left, deadline - time.monotonic())) / 60
                    report(
                        f"step {step}/{settings.max_steps}  l1 {result.l1:.4f} "
                        f"(hold {result.hold:.4f})  loss {sum(losses.values()):.3f}  "
                        f"{seconds:.2f} s/step  {left:.0f} min left"
                    )
                    since, mark = step, time.monotonic()
                if step % settings.picture_every == 0 or step == 1:
                    book.look(step, *trainer.look())
                if step % settings.checkpoint_every == 0:
                    _save(trainer, path, deadline, report)
                    saved = step
                    write_report([trainer.run], trainer.run / PAGE)
            if saved != trainer.step:
                if received:
                    report(f"stopping at step {trainer.step}: saving; Ctrl-C stops at once")
                _save(trainer, path, deadline, report)
            if trainer.step > 0:
                book.look(trainer.step, *trainer.look())
                write_report([trainer.run], trainer.run / PAGE)
    done = trainer.step >= settings.max_steps
    reason = "stopped by a signal" if received else "done" if done else "time is up"
    report(f"{reason} at step {trainer.step}: {path}")
    if received:  # so that `sonomime train && ...` does not go on
        raise KeyboardInterrupt if received[0] == signal.SIGINT else Terminated(received[0])
    return path


def _begin(trainer: Trainer, path: Path, resume: bool, start: Path | None, report: Report) -> None:
    """Load what the run begins with."""
    if path.exists():
        if not resume:
            hint = "add --resume, or choose another -o"
            raise OutputError(f"{path}: this folder already holds a run", hint)
        trainer.load(load_checkpoint(path))
        report(f"resuming at step {trainer.step}")
        return
    if resume:
        report(f"{path} does not exist yet: starting from the beginning")
    if start is not None:
        remark = trainer.start_from(load_checkpoint(start))
        report(f"starting from the weights of {start}")
        if remark:
            report(f"{start}: {remark}")
    elif trainer.config.train.batchnorm == "frozen":
        raise ConfigError(
            "train.batchnorm=frozen keeps the statistics of other weights, and none are given",
            "add --from CHECKPOINT, or train with train.batchnorm=batch",
        )


def _save(trainer: Trainer, path: Path, deadline: float, report: Report) -> None:
    """Save with BatchNorm's statistics estimated, on as many batches as there is time for."""
    trainer.save(path)
    if wanted := trainer.batches_to_estimate():
        # This takes minutes, and a sender of SIGTERM may not wait for it: so it was saved before.
        seen = trainer.estimate_batchnorm(deadline)
        if seen < wanted:
            said = f"BatchNorm's statistics are those of {seen} batches, not of {wanted}"
            report(f"time is up: {said}")
        trainer.save(path)


@contextmanager
def quicker_threads(trainer: Trainer, report: Report) -> Iterator[None]:
    """Let torch use one thread or all of them, whichever is quicker at the moment: threads wait for
    the slowest at every layer, so all may take several times as long where other programs run.

    The trainer is not changed. Nothing is measured where OMP_NUM_THREADS is set, where torch has
    one thread, on a GPU, and where fewer steps are left than measuring takes.
    """
    every = torch.get_num_threads()
    left = trainer.config.train.max_steps - trainer.step
    given = os.environ.get("OMP_NUM_THREADS")
    if given or every == 1 or trainer.device.type != "cpu" or left <= 2 * ROUNDS:
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
    that a copy of the trainer takes on one batch."""
    batch = trainer.batch(trainer.step).map(lambda tensor: tensor[:PAIRS])
    twin = Trainer(trainer.config, lambda step: batch, trainer.run, [], [])
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
