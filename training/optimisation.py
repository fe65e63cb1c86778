"""How long a run is, its learning rate, and one update of the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..runtime.support.errors import CheckpointError
from .config import Config, TrainConfig
from .distributed import Processes


class NotFinite(CheckpointError):
    """A loss, a gradient or a weight is not finite. Nothing was updated or saved with it.
    `saved`: whether the run has a checkpoint."""

    def __init__(self, message: str, saved: bool = False) -> None:
        begin = "begin a new run --from the last checkpoint" if saved else "begin again"
        again = "; --resume would repeat the same numbers" if saved else ""
        super().__init__(message, f"{begin} with a smaller train.learning_rate{again}")


def with_steps(config: Config, clips: int) -> tuple[Config, str]:
    """The configuration with the run's number of steps in ``train.max_steps``, and the rule that
    gave it, for the user. An epoch has as many pairs as clips, ``num_repeats`` times."""
    train = config.train
    if train.max_steps > 0:
        return config, f"{train.max_steps} steps (train.max_steps)"
    pairs = train.epochs * train.num_repeats * clips
    steps = math.ceil(pairs / train.batch_size)
    rule = (
        f"{clips} clips x {train.num_repeats} repeats x {train.epochs} epochs / {train.batch_size} "
        f"= {steps} steps"
    )
    return dataclasses.replace(config, train=dataclasses.replace(train, max_steps=steps)), rule


def learning_rate(train: TrainConfig, step: int) -> float:
    """A step's rate: linear warm-up, then constant, or a cosine to 0 at ``max_steps``, or a tenth
    from each milestone on."""
    rate = train.learning_rate * min(1.0, (step + 1) / max(1, train.warmup))
    if train.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / train.max_steps)))
    elif train.schedule == "milestones":
        rate *= 0.1 ** sum(step >= share * train.max_steps for share in train.milestones)
    return rate


def of_the_whole(
    totals: Sequence[dict[str, Tensor]], processes: Processes
) -> list[dict[str, Tensor]]:
    """For each part of a process's batch, by a loss's name, the factor with which the mean over all
    parts of all processes is the loss of the whole batch. `totals`: the parts' `Objective.totals`.
    """
    if not totals[0]:
        return [{} for _ in totals]
    parts = torch.stack([torch.stack(list(each.values())) for each in totals]).float()
    mean = parts.mean(dim=0)
    processes.average([mean])
    below, above = (parts / mean.clamp(min=1e-12)).unbind(dim=-1)
    factors = below / above.clamp(min=1e-12)
    return [dict(zip(totals[0], row, strict=True)) for row in factors]


def update(
    optimizer: torch.optim.Optimizer,
    losses: Iterable[dict[str, Tensor]],
    parts: int,
    networks: Sequence[nn.Module],
    grad_clip: float,
    scaler: torch.amp.GradScaler,
    processes: Processes,
    step: int,
) -> None:
    """Add up the gradients of a batch's parts, average them over the processes, clip each network's
    by its largest element, and let the optimizer step.

    Args:
        losses: of each of the ``parts``, by name. Each is made when the one before is done with,
            so that one part alone has its activations in memory.

    Raises:
        NotFinite: a loss or a gradient is not finite; the weights are as before. (In fp16 such a
            gradient only lowers the scale, until it is below 1.)
    """
    optimizer.zero_grad(set_to_none=True)
    found: dict[str, Tensor] = {}
    for i, named in enumerate(losses):
        total = torch.stack(list(named.values())).sum()
        scaler.scale(total / parts).backward()
        found |= {f"loss {name!r} (part {i + 1})": loss.detach() for name, loss in named.items()}
    processes.average_gradients(p for network in networks for p in network.parameters())
    scaler.unscale_(optimizer)
    gradients = {
        f"gradient of {type(network).__name__}": _clip(network, grad_clip) for network in networks
    }
    if not scaler.is_enabled() or scaler.get_scale() < 1:
        found |= gradients
    values = torch.stack([value.float() for value in found.values()])
    if not torch.isfinite(values).all():  # one wait for the device, not one for each
        what, value = next(x for x in found.items() if not torch.isfinite(x[1]))
        fault = f"the {what} became {value.item()} at step {step}"
        raise NotFinite(fault)
    scaler.step(optimizer)
    scaler.update()


def _clip(network: nn.Module, limit: float) -> Tensor:
    """Scale a network's gradients down until none of their elements is larger than `limit`; gives
    the largest before. (torch's clip_grad_norm_ does the same, with a norm that takes ten times as
    long on a CPU.)"""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if not gradients:  # of a network that this batch did not use
        return next(network.parameters()).new_zeros(())
    ends = torch.stack([end for each in gradients for end in torch.aminmax(each)])
    largest = ends.abs().max()
    torch._foreach_mul_(gradients, (limit / (largest + 1e-6)).clamp(max=1.0))
    return largest
