"""The rewrites give the same numbers: each by itself, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sonomime.training.config import GeneratorConfig
from sonomime.training.models.blocks import Down, Hourglass, Residual, Up
from sonomime.training.models.keypoints.generator import Decoder
from sonomime.training.models.keypoints.rewrite import (
    PaddedConv,
    PhaseConv,
    PhaseDecoder,
    PhaseUp,
    depth_to_space,
    fold_batchnorm,
    make_conv,
    merged,
    with_more_inputs,
)


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def conv3(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).double()


def enlarged(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


@pytest.mark.parametrize("block", [Down, Up, Residual, Hourglass])
@torch.no_grad()
def test_batchnorm_folds_once(block: type[nn.Module]) -> None:
    arguments = {Residual: (3,), Hourglass: (3, 4, 2, 8)}.get(block, (3, 5))
    module = block(*arguments).eval().double()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.1, 2)  # type: ignore[arg-type]
    x = picture(2, 3, 8, 12)
    wanted = module(x)
    for _ in range(2):
        fold_batchnorm(module)
        torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-12)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == (1 if block is Residual else 0)
    for norm in norms:  # what cannot be folded is a scale and a shift
        assert 0 < norm.eps < 1e-30  # some versions of torch refuse 0
        assert norm.running_mean is not None and norm.running_var is not None
        assert not norm.running_mean.any() and (norm.running_var == 1).all()


@torch.no_grad()
def test_merged_heads_and_more_inputs() -> None:
    first, second = (nn.Conv2d(4, n, 7, padding=2).double() for n in (3, 5))
    x = picture(1, 4, 9, 9)
    both = merged(first, second)(x)
    torch.testing.assert_close(both, torch.cat([first(x), second(x)], 1), rtol=0, atol=1e-12)
    wide = torch.cat([x, picture(1, 2, 9, 9)], dim=1)
    torch.testing.assert_close(with_more_inputs(first, 2)(wide), first(x), rtol=0, atol=1e-12)
    assert with_more_inputs(first, 0) is first


def test_make_conv_keeps_what_it_is_like() -> None:
    like = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2).half()
    conv = make_conv(torch.ones(8, 2, 5, 5), None, like=like, padding=2)
    assert (conv.in_channels, conv.out_channels, conv.groups) == (4, 8, 2)
    assert (conv.kernel_size, conv.stride, conv.padding) == ((5, 5), (2, 2), (2, 2))
    assert conv.weight.dtype == torch.float16 and conv.bias is None


@settings(max_examples=30)
@given(
    factor=st.sampled_from([2, 4, 8]),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_phases_are_the_convolution_of_the_enlarged_input(
    factor: int, size: tuple[int, int], channels: tuple[int, int], bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    conv, x = conv3(*channels, bias), picture(2, channels[0], *size)
    phases = PhaseConv(conv, factor)
    found = depth_to_space(torch.cat(phases(x), dim=1), factor)
    torch.testing.assert_close(found, conv(enlarged(x, factor)), rtol=0, atol=1e-12)
    # Of 9 taps for each of factor^2 pixels:
    assert sum(part.conv.weight[0, 0].numel() for part in phases.convs) == 16 + 9 * (factor > 2)
    if factor == 2:
        torch.testing.assert_close(PhaseUp(conv)(x), F.relu(found), rtol=0, atol=1e-12)


@torch.no_grad()
def test_padded_conv_pads_each_side_by_itself() -> None:
    conv = nn.Conv2d(1, 1, (2, 1), bias=False).double()
    nn.init.ones_(conv.weight)
    x = torch.arange(4, dtype=torch.float64).view(1, 1, 2, 2)
    found = PaddedConv(conv, (0, 1, 1, 0))(x)
    assert found.tolist() == [[[[0, 1, 0], [2, 4, 0]]]]


@pytest.mark.parametrize("downs", [1, 2, 3])
@torch.no_grad()
def test_decoder(downs: int) -> None:
    """Every up block reads the feature, enlarged to its own input's size."""
    torch.manual_seed(downs)
    config = GeneratorConfig(width=4, max_features=16, downs=downs)
    decoder = Decoder(config, 1, skip=5).eval().double()
    for up in decoder.ups:
        up.norm = nn.Identity()  # type: ignore[union-attr]
    x, feature = picture(1, min(16, 4 * 2**downs), 6, 5), picture(1, 5, 6, 5)
    wanted = decoder(x, feature)
    torch.testing.assert_close(PhaseDecoder(decoder)(x, feature), wanted, rtol=0, atol=1e-6)
