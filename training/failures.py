"""What ends a run without being asked for, with what is saved and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from ..runtime.support.errors import BackendError, SonomimeError
from .optimisation import NotFinite
from .trainer import Trainer


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a GPU or of the machine did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # What torch's allocator of the CPU raises has no class of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def explained(trainer: Trainer) -> Iterator[None]:
    """Say which checkpoint is left, and what to do.

    What is not finite leaves the last checkpoint. Where memory was short or another process ended,
    the weights are whole, so they are saved first: the step that failed will be done again.

    Raises:
        NotFinite, BackendError: instead of the error of the block.
    """
    path, train = trainer.run / "checkpoint.pt", trainer.config.train

    def left() -> str:
        if trainer.saved < 0:
            return "nothing had been saved"
        return f"{path} holds step {trainer.saved}"

    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"{error.message}; {left()}") from error
    except (BackendError, MemoryError, RuntimeError) as error:
        if not isinstance(error, BackendError) and not is_out_of_memory(error):
            raise
        if trainer.step > max(0, trainer.saved):
            with suppress(SonomimeError):  # the first error is the one to tell
                trainer.save(path)
        if isinstance(error, BackendError):
            raise BackendError(f"{error.message}; {left()}", error.hint) from error
        pairs = train.batch_size // trainer.processes.count // train.accumulate
        raise BackendError(
            f"out of memory at step {trainer.step}, with {pairs} pairs at a time; {left()}",
            "raise train.accumulate (also with --resume) or lower train.batch_size; a new run may "
            "also have a smaller model.image_size or smaller widths",
        ) from error
