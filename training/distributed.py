"""Processes that train one model together, as torchrun starts them: gloo on CPUs, NCCL on GPUs.

Each draws its part of the batch and computes its gradient; everyone's gradient is then the mean.
torch's DistributedDataParallel would do this during the backward pass and so hide its time. But it
wraps a module whose forward makes the loss: it would need a wrapper for each of the two updates
(model, discriminator), `no_sync` for all parts of an accumulated batch but the last, and a search
for unused parameters, since losses come and go with the step. One mean of all gradients after the
backward pass is the function `average_gradients`, the same for both updates; so it is that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ..runtime.support.errors import BackendError, ConfigError, is_out_of_memory

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _together(function: _Function) -> _Function:
    """Of a function that all processes call: if one of them has ended, say so (BackendError)."""

    @wraps(function)
    def wrapper(*args: Any) -> Any:
        try:
            return function(*args)
        except RuntimeError as error:
            if is_out_of_memory(error):  # of this one: a copy of all gradients is made
                raise
            fault = f"another process of this run has ended ({str(error).splitlines()[0]})"
            hint = "its own message says why; start all of them again, with --resume"
            raise BackendError(fault, hint) from error

    return wrapper  # type: ignore[return-value]


@dataclass(frozen=True)
class Processes:
    """Those that train together. Every method is called by all of them, at the same point.

    rank: this one's number; count: how many there are; local: this one's number on its machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, saves and talks."""
        return self.rank == 0

    def device(self) -> torch.device:
        """What this process computes on: its own GPU, or the CPU."""
        return torch.device(f"cuda:{self.local}" if torch.cuda.is_available() else "cpu")

    def loaders(self) -> int:
        """How many threads prepare batches for this process's GPU: its share of the cores but one,
        eight at most."""
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(1, min(8, len(os.sched_getaffinity(0)) // here - 1))

    def share(self, batch_size: int, accumulate: int = 1) -> range:
        """Places in the batch of the pairs that this process draws.

        Raises:
            ConfigError: the batch cannot be cut into parts of one size.
        """
        size, left = divmod(batch_size, self.count * accumulate)
        if left or not size:
            parts = f"{self.count} processes x train.accumulate {accumulate}"
            fault = f"train.batch_size {batch_size} cannot be cut into {parts} equal parts"
            raise ConfigError(fault, f"make it a multiple of {self.count * accumulate}")
        mine = size * accumulate
        return range(self.rank * mine, (self.rank + 1) * mine)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes. One that a process lacks counts as
        zero; one that all lack stays absent, so that the optimizer leaves its weight alone."""
        if self.count == 1:
            return
        known = list(parameters)
        held = known[0].new_tensor([float(each.grad is not None) for each in known])
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in known]
        self.average([*grads, held])
        for parameter, grad, share in zip(known, grads, held.tolist(), strict=True):
            parameter.grad = grad if share > 0 else None

    @_together
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their mean over the processes, in place."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    @_together
    def largest(self, number: float) -> float:
        """The largest of all processes' numbers."""
        if self.count == 1:
            return number
        found = torch.tensor(number, dtype=torch.float64, device=self.device())
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found.item()

    @_together
    def gathered(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        values = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(values, value)
        return values

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """The first process of each machine runs the block alone, then the others together: they
        find what it has put into the cache."""
        if self.local > 0:
            self.largest(0)
        yield
        if self.local == 0:
            self.largest(0)


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Yield the processes that torchrun has started, or this one alone.

    Raises:
        ConfigError: there are more processes than GPUs.
        BackendError: another process has ended.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "LOCAL_RANK" not in os.environ:
        yield ALONE
        return
    found = Processes(int(os.environ["RANK"]), count, int(os.environ["LOCAL_RANK"]))
    if torch.cuda.is_available():
        if found.local >= (gpus := torch.cuda.device_count()):
            hint = f"torchrun --nproc-per-node={gpus} ..."
            raise ConfigError(f"process {found.local} of this machine has no GPU", hint)
        torch.cuda.set_device(found.local)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # The first may decode clips or estimate BatchNorm for long; torchrun ends all if one ends.
    distributed.init_process_group(backend, timeout=timedelta(hours=6))
    try:
        yield found
    finally:
        distributed.destroy_process_group()
