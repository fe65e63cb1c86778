"""How much memory training will take: of the weights, and of what autograd keeps for each pair."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .data.batch import PairBatch
from .trainer import Trainer


class Estimate(NamedTuple):
    """Bytes, beside what Python, torch and the clips take."""

    weights: int  # of all networks, with gradients, Adam's two moments and the EMA
    activations: int  # of one part of the batch, with as much again for the backward pass

    def __str__(self) -> str:
        whole, weights, pairs = (
            f"{n / 2**30:.1f} GB" if n > 2**30 else f"{n / 2**20:.0f} MB"
            for n in (sum(self), *self)
        )
        return (
            f"memory: about {whole} ({weights} for weights and optimizers, {pairs} for the pairs)"
        )


def estimate(trainer: Trainer) -> Estimate:
    """Measure what the forward pass of one pair keeps, and of two. The trainer is not changed.

    On a CPU the peaks of six trainings were 0.87 to 1.29 times the estimate (lite and ours-*, 128
    and 256 pixels, two and four pairs, fp32 and bf16).
    """
    trained = [trainer.model, *([trainer.discriminator] if trainer.discriminator else [])]
    weights = sum(4 * _bytes(network) for network in trained)
    weights += _bytes(trainer.ema) + _bytes(trainer.objective)
    batch = trainer.batch(trainer.step)
    train = trainer.config.train
    pairs = len(batch.source) // train.accumulate
    for network in trained:  # neither BatchNorm nor spectral norm may go on
        network.eval()
    two = min(2, pairs)
    one, other = (
        _kept(trainer, batch.map(lambda tensor, n=n: tensor[:n]))  # type: ignore[misc]
        for n in (1, two)
    )
    for network in trained:
        network.train()
    return Estimate(weights, 2 * (one + (pairs - 1) * (other - one)))


def _kept(trainer: Trainer, batch: PairBatch) -> int:
    """Bytes that the forward pass of a batch keeps for the backward pass, at the end of the run,
    when all losses count."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor  # kept, so that no other takes its place

    last = trainer.config.train.max_steps - 1
    if trainer.discriminator is not None:
        trainer.discriminator.requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), trainer.autocast():
        trainer.objective(trainer.model, batch, last, trainer.discriminator)
    for weight in trainer.model.parameters():
        held.pop(weight.untyped_storage().data_ptr(), None)
    return sum(held.values())


def _bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
