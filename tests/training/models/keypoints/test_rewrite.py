"""The rewrites give the same numbers: each by itself, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sonomime.training.models.blocks import Down, Hourglass, Residual, Up
from sonomime.training.models.keypoints.rewrite import PhaseConv, fold_batchnorm


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def assert_same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", [Down(3, 5), Up(3, 5), Residual(3), Hourglass(3, 4, 2, 8)])
@torch.no_grad()
def test_batchnorm_becomes_part_of_convolutions(block: nn.Module) -> None:
    block.eval().double()
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.1, 2)  # type: ignore[arg-type]
    x = picture(2, 3, 8, 12)
    wanted = block(x)
    fold_batchnorm(block)
    assert_same(block(x), wanted)
    norms = [part for part in block.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == isinstance(block, Residual)
    for norm in norms:  # what cannot be folded is a scale and a shift
        assert 0 < norm.eps < 1e-30  # some versions of torch refuse 0
        assert norm.running_mean is not None and norm.running_var is not None
        assert not norm.running_mean.any() and (norm.running_var == 1).all()


@settings(max_examples=25)
@given(
    factor=st.integers(2, 5),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
)
@torch.no_grad()
def test_phases_are_the_convolution_of_the_enlarged_input(
    factor: int, size: tuple[int, int], channels: tuple[int, int], bias: bool
) -> None:
    conv = nn.Conv2d(*channels, 3, padding=1, bias=bias).double()
    x = picture(2, channels[0], *size)
    wanted = conv(F.interpolate(x, scale_factor=float(factor), mode="nearest"))
    phases = PhaseConv(conv, factor)
    assert_same(phases(x), wanted)
    assert_same(PhaseConv(conv, factor, relu=True)(x), F.relu(wanted))
    # Of 9 taps for each of factor^2 pixels:
    assert sum(part.conv.weight[0, 0].numel() for part in phases.convs) == 16 + 9 * (factor > 2)
