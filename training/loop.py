"""Running a trainer: cadence, signals, time limit, log and pictures."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType

import torch

from ..runtime.support.atomic_files import locked
from ..runtime.support.errors import ConfigError, OutputError
from ..runtime.support.process import Terminated
from .checkpoint import load_checkpoint
from .failures import explained
from .logbook import Logbook
from .memory import estimate
from .optimisation import learning_rate
from .pace import Pace, mean_figures
from .run_report.page import PAGE, write_report
from .starting import resume_from, start_from
from .threads import quicker_threads
from .trainer import Trainer
from .watch import Watch

Report = Callable[[str], None]

TIME_IS_UP = 0.5  # as a reason to stop: below the number of every signal


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
    Of several processes the first alone writes, and all stop at the same step.

    Args:
        max_minutes: of everything, the estimate of BatchNorm's statistics at the end included.
            Where that would take more than half of the time, it sees fewer batches.
        report: takes lines for the user.
        start: a checkpoint whose weights a new run begins with; a resumed run has its own.

    Raises:
        OutputError: RUN already holds a run and ``resume`` is false; another process writes there.
        ConfigError: BatchNorm is to be frozen in a run that starts from nothing.
        NotFinite: a number became NaN or infinite; the last checkpoint is kept.
        BackendError: there is not enough memory, or another process of the run has ended; what was
            learned is saved.
        Terminated: after SIGTERM or SIGHUP, when all is saved; KeyboardInterrupt after Ctrl-C.
    """
    path, processes = trainer.run / "checkpoint.pt", trainer.processes
    settings = trainer.config.train
    pace = Pace(trainer, math.inf if max_minutes is None else 60 * max_minutes)
    with locked(trainer.run) if processes.first else nullcontext():
        _begin(trainer, path, resume, start, report)
        if len(steps := set(processes.gathered(trainer.step))) > 1:
            fault = f"the processes begin at different steps: {sorted(steps)}"
            raise ConfigError(fault, f"let all of them see the same folder {trainer.run}")
        with stop_signals() as received, ExitStack() as stack:

            def why_stop() -> float:
                """The number of a signal, or TIME_IS_UP, or 0: for all processes the same."""
                mine = received[0] if received else TIME_IS_UP if pace.time_is_up() else 0
                return processes.largest(mine)

            # Denormal numbers count as 0 in this thread: a CPU is a hundred times slower with them,
            # and gradients through a softmax are full of them.
            stack.callback(torch.set_flush_denormal, False)
            torch.set_flush_denormal(True)
            stack.enter_context(explained(trainer))
            stack.enter_context(quicker_threads(trainer, report))
            report(str(estimate(trainer)))
            book = None
            if processes.first:
                watch = Watch(trainer.config)
                book = stack.enter_context(Logbook(trainer.run, trainer.step, watch, report))
                book.begin(trainer.facts())
            pace.start()
            stop: float = 0
            while trainer.step < settings.max_steps and not (stop := why_stop()):
                rate, result = learning_rate(settings, trainer.step), trainer.train_step()
                step = trainer.step
                if step % settings.log_every == 0 or step in (1, settings.max_steps):
                    losses, l1, hold = mean_figures(processes, result)
                    lap = pace.lap()
                    if book:
                        figures = {"l1": l1, "hold": hold, "rate": rate}
                        book.write(step, {**losses, **figures, **lap._asdict()})
                    report(
                        f"step {step}/{settings.max_steps}  l1 {l1:.4f} (hold {hold:.4f})  "
                        f"loss {sum(losses.values()):.3f}  {lap}  "
                        f"{math.ceil(pace.left() / 60)} min left"
                    )
                if sentence := pace.first_sight():
                    report(sentence)
                if book and (step % settings.picture_every == 0 or step == 1):
                    book.look(step, *trainer.look())
                if step % settings.checkpoint_every == 0:
                    _save(trainer, path, pace.deadline, report)
                    if book:
                        _show(trainer.run, report)
            if trainer.saved != trainer.step:
                if stop > TIME_IS_UP:
                    report(f"stopping at step {trainer.step}: saving; Ctrl-C stops at once")
                _save(trainer, path, pace.deadline, report)
            if book and trainer.step > 0:
                book.look(trainer.step, *trainer.look())
                _show(trainer.run, report)
            signalled = int(processes.largest(received[0] if received else 0))
    done = trainer.step >= settings.max_steps
    reason = "stopped by a signal" if signalled else "done" if done else "time is up"
    page = f", {trainer.run / PAGE}" if trainer.step > 0 else ""
    report(f"{reason} at step {trainer.step}: {path}{page}")
    if signalled:  # so that `sonomime train && ...` does not go on
        raise KeyboardInterrupt if signalled == signal.SIGINT else Terminated(signalled)
    return path


def _begin(trainer: Trainer, path: Path, resume: bool, start: Path | None, report: Report) -> None:
    """Load what the run begins with."""
    if path.exists():
        if not resume:
            hint = "add --resume to the same command, or choose another -o"
            raise OutputError(f"{path}: this folder already holds a run", hint)
        resume_from(trainer, load_checkpoint(path))
        report(f"resuming at step {trainer.step}")
        return
    if resume:
        report(f"{path} does not exist yet: starting from the beginning")
    if start is not None:
        remark = start_from(trainer, load_checkpoint(start))
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


def _show(run: Path, report: Report) -> None:
    """Write the report: whatever prevents that is no reason to end a run."""
    try:
        write_report([run], run / PAGE)
    except Exception as error:
        report(f"warning: {run / PAGE} was not written: {error}")
