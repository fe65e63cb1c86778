"""Nearest upsampling and conv3 split into phases: the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sonomime.training.config import GeneratorConfig
from sonomime.training.models.keypoints.generator import Decoder
from sonomime.training.models.keypoints.rewrite import PhaseDecoder
from sonomime.training.models.subpixel_conv import PaddedConv, PhaseConv, PhaseUp, depth_to_space


def conv3(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).double()


def enlarged(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


@settings(max_examples=30)
@given(
    factor=st.sampled_from([2, 4, 8]),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 3),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_phases_are_the_convolution_of_the_enlarged_input(
    factor: int, height: int, width: int, inputs: int, outputs: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = conv3(inputs, outputs, bias)
    x = torch.randn(2, inputs, height, width, dtype=torch.float64)
    found = depth_to_space(torch.cat(PhaseConv(conv, factor)(x), dim=1), factor)
    torch.testing.assert_close(found, conv(enlarged(x, factor)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("factor", "taps"), [(2, 16), (4, 25), (8, 25)])
def test_work_that_is_left(factor: int, taps: int) -> None:
    """Of 9 taps for each of factor^2 pixels."""
    phases = PhaseConv(conv3(1, 1), factor)
    assert sum(part.conv.weight[0, 0].numel() for part in phases.convs) == taps


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(1, 1, 3),
        nn.Conv2d(1, 1, 3, padding=1, stride=2),
        nn.Conv2d(1, 1, 5, padding=1),
        nn.Conv2d(2, 2, 3, padding=1, groups=2),
    ],
)
def test_other_convolutions_are_refused(conv: nn.Conv2d) -> None:
    with pytest.raises(ValueError, match="conv3"):
        PhaseConv(conv, 2)


@torch.no_grad()
def test_phase_up() -> None:
    conv = conv3(3, 4)
    x = torch.randn(1, 3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(PhaseUp(conv)(x), F.relu(conv(enlarged(x, 2))), rtol=0, atol=1e-12)


@torch.no_grad()
def test_padded_conv_pads_each_side_by_itself() -> None:
    conv = nn.Conv2d(1, 1, (2, 1), bias=False).double()
    nn.init.ones_(conv.weight)
    x = torch.arange(4, dtype=torch.float64).view(1, 1, 2, 2)
    found = PaddedConv(conv, (0, 1, 1, 0))(x)
    assert found.tolist() == [[[[0, 1, 0], [2, 4, 0]]]]


@torch.no_grad()
def test_depth_to_space_order() -> None:
    """Channel (a factor + b) C + c is pixel (a, b) of channel c."""
    x = torch.arange(8.0).view(1, 8, 1, 1)
    assert depth_to_space(x, 2).tolist() == [[[[0, 2], [4, 6]], [[1, 3], [5, 7]]]]


@pytest.mark.parametrize("downs", [1, 2, 3])
@torch.no_grad()
def test_decoder(downs: int) -> None:
    """Every up block reads the feature, enlarged to its own input's size."""
    torch.manual_seed(downs)
    config = GeneratorConfig(width=4, max_features=16, downs=downs)
    decoder = Decoder(config, 1, skip=5).eval().double()
    deep = min(16, 4 * 2**downs)
    x = torch.randn(1, deep, 6, 5, dtype=torch.float64)
    feature = torch.randn(1, 5, 6, 5, dtype=torch.float64)
    wanted = decoder(x, feature)
    for up in decoder.ups:
        up.norm = nn.Identity()  # type: ignore[union-attr]
    plain = decoder(x, feature)
    assert not torch.allclose(wanted, plain, atol=1e-7)  # the norms are not trivial in eval mode
    torch.testing.assert_close(PhaseDecoder(decoder)(x, feature), plain, rtol=0, atol=1e-6)
