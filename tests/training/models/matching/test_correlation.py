"""The product of runs against what it stands for: windows of shifted products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sonomime.training.models.matching.correlation import LocalCorrelation


def windows(first: Tensor, second: Tensor, radius: int) -> Tensor:
    size, side = first.shape[-1], 2 * radius + 1
    padded = F.pad(second, (radius,) * 4)
    products = [
        (first * padded[..., y : y + size, x : x + size]).sum(1)
        for y in range(side)
        for x in range(side)
    ]
    return torch.stack(products, dim=1)


@pytest.mark.parametrize(
    ("batch", "channels", "size", "radius"),
    [(1, 1, 8, 1), (2, 3, 8, 4), (3, 2, 32, 4), (1, 8, 64, 3), (2, 4, 16, 9)],
)
def test_it_is_the_windows_of_shifted_products(
    batch: int, channels: int, size: int, radius: int
) -> None:
    random = torch.Generator().manual_seed(size)
    first, second = torch.randn(2, batch, channels, size, size, generator=random)
    wanted = windows(first, second, radius)
    assert (wanted[:, 0, 0] == 0).all()  # outside is zero
    correlation = LocalCorrelation(size, radius)
    last = second.contiguous(memory_format=torch.channels_last)
    turned = first.transpose(2, 3).contiguous().transpose(2, 3)
    for one, other in ((first, second), (turned, last)):  # however they lie in memory
        torch.testing.assert_close(correlation(one, other), wanted, rtol=1e-4, atol=1e-5)
