"""What ends a run without being asked for, with what is saved and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..runtime.support.errors import BackendError, SonomimeError, is_out_of_memory
from .optimisation import NotFinite
from .trainer import Trainer


@contextmanager
def explained(trainer: Trainer) -> Iterator[None]:
    """Say which checkpoint is left, and what to do.

    What is not finite leaves the last checkpoint. Whatever else failed (memory was short, another
    process ended, a disk was full), the weights are whole, so they are saved first: the step that
    failed will be done again.

    Raises:
        NotFinite, SonomimeError: instead of the error of the block. BackendError: out of memory.
    """
    path, train = trainer.run / "checkpoint.pt", trainer.config.train

    def left() -> str:
        if trainer.saved < 0:
            return "nothing had been saved"
        return f"{path} holds step {trainer.saved}"

    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"{error.message}; {left()}", trainer.saved >= 0) from error
    except Exception as error:
        if trainer.step > max(0, trainer.saved):
            with suppress(Exception):  # the first error is the one to tell
                trainer.save(path)
        if isinstance(error, SonomimeError):
            raise type(error)(f"{error.message}; {left()}", error.hint) from error
        if not is_out_of_memory(error):
            raise
        pairs = train.batch_size // trainer.processes.count // train.accumulate
        more = "raise train.accumulate (also with --resume) or lower train.batch_size; "
        raise BackendError(
            f"out of memory at step {trainer.step}, with {pairs} pairs at a time; {left()}",
            f"{more if pairs > 1 else ''}a new run may have a smaller --size or --width",
        ) from error
