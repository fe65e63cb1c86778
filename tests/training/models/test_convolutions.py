"""Convolutions made of others give the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sonomime.training.models.blocks import Down, Hourglass, Residual, Same, Up
from sonomime.training.models.convolutions import (
    fold_batchnorm,
    make_conv,
    merged,
    with_more_inputs,
)


def randomised(module: nn.Module) -> nn.Module:
    """In eval mode, float64, with BatchNorms that do something."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.1, 2)  # type: ignore[arg-type]
    return module.eval().double()


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("block", [Same, Down, Up, Residual, Hourglass])
@torch.no_grad()
def test_batchnorm_folds(block: type[nn.Module]) -> None:
    arguments = {Residual: (3,), Hourglass: (3, 4, 2, 8)}.get(block, (3, 5))
    module = randomised(block(*arguments))
    x = picture(2, 3, 8, 12)
    wanted = module(x)
    fold_batchnorm(module)
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-12)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == (1 if block is Residual else 0)
    for norm in norms:  # what cannot be folded is a scale and a shift
        assert 0 < norm.eps < 1e-30  # some versions of torch refuse 0
        assert norm.running_mean is not None and norm.running_var is not None
        assert not norm.running_mean.any() and (norm.running_var == 1).all()


@torch.no_grad()
def test_folding_twice_changes_nothing() -> None:
    module = randomised(Residual(3))
    x = picture(1, 3, 4, 4)
    wanted = module(x)
    fold_batchnorm(module)
    fold_batchnorm(module)
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-12)


@torch.no_grad()
def test_merged_heads() -> None:
    first = nn.Conv2d(4, 3, 7, padding=2).double()
    second = nn.Conv2d(4, 5, 7, padding=2).double()
    x = picture(1, 4, 9, 9)
    both = merged(first, second)(x)
    torch.testing.assert_close(both, torch.cat([first(x), second(x)], 1), rtol=0, atol=1e-12)


@torch.no_grad()
def test_more_inputs_of_any_content() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1).double()
    x = picture(1, 3, 5, 5)
    wide = torch.cat([x, picture(1, 2, 5, 5)], dim=1)
    torch.testing.assert_close(with_more_inputs(conv, 2)(wide), conv(x), rtol=0, atol=1e-12)
    assert with_more_inputs(conv, 0) is conv


def test_make_conv_keeps_what_it_is_like() -> None:
    like = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2).half()
    conv = make_conv(torch.ones(8, 2, 5, 5), None, like=like, padding=2)
    assert (conv.in_channels, conv.out_channels, conv.groups) == (4, 8, 2)
    assert (conv.kernel_size, conv.stride, conv.padding) == ((5, 5), (2, 2), (2, 2))
    assert conv.weight.dtype == torch.float16 and conv.bias is None
    assert not conv.weight.requires_grad
