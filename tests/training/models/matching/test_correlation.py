"""The product of runs against what it stands for: windows of shifted products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sonomime.training.models.matching.correlation import LocalCorrelation


def descriptors(batch: int, channels: int, size: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(size)
    first, second = torch.randn(2, batch, channels, size, size, generator=random)
    return first, second


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
    [(1, 1, 8, 1), (2, 3, 8, 4), (1, 5, 16, 3), (3, 2, 32, 4), (1, 8, 64, 3), (2, 4, 16, 9)],
)
def test_it_is_the_windows_of_shifted_products(
    batch: int, channels: int, size: int, radius: int
) -> None:
    first, second = descriptors(batch, channels, size)
    found = LocalCorrelation(size, radius)(first, second)
    assert found.shape == (batch, (2 * radius + 1) ** 2, size, size)
    torch.testing.assert_close(found, windows(first, second, radius), rtol=1e-4, atol=1e-5)


def test_how_the_memory_lies_does_not_matter() -> None:
    first, second = descriptors(2, 3, 16)
    correlation = LocalCorrelation(16, 2)
    last = [x.contiguous(memory_format=torch.channels_last) for x in (first, second)]
    turned = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (first, second)]
    assert not turned[0].is_contiguous()
    for one, other in (last, turned, (last[0], second), (first, turned[1])):
        torch.testing.assert_close(correlation(one, other), windows(first, second, 2))


def test_outside_is_zero() -> None:
    ones = torch.ones(1, 4, 8, 8)
    found = LocalCorrelation(8, 1)(ones, ones)[0].view(3, 3, 8, 8)
    assert (found[0, :, 0] == 0).all() and (found[:, 2, :, 7] == 0).all()
    assert (found[1, 1] == 4).all() and (found[0, :, 1:, 1:7] == 4).all()
