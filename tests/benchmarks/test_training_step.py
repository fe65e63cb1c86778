"""The plain loop computes what ours does."""

from __future__ import annotations

import torch
from torch import nn

from sonomime.benchmarks.training_step import PlainDiscriminator, plain_l1
from sonomime.training.config import DiscriminatorConfig
from sonomime.training.models.image_losses import Discriminator, l1


def test_the_plain_discriminator_and_loss_are_ours() -> None:
    torch.manual_seed(0)
    judge = Discriminator(DiscriminatorConfig(width=4), channels=3).eval()
    for norm in judge.norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -1, 1)
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        ours = judge(images)
        judge.__class__ = PlainDiscriminator
        plain = judge(images)
    torch.testing.assert_close(ours.score, plain.score, atol=1e-4, rtol=1e-4)
    for one, other in zip(ours.features, plain.features, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(l1(images, images.roll(1)), plain_l1(images, images.roll(1)))
