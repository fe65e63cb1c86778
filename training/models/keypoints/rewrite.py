"""Exact rewrites of a model before its export: the same numbers, for less work.

- BatchNorm becomes part of the convolution before it; where none is (a residual block's first), a
  scale and shift.
- Nearest upsampling and conv3 become small convolutions at the low resolution, one per phase of the
  result, and a depth-to-space: 4/9 of the work for x2, 25/144 for x4.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import Hourglass
from ..convolutions import fold_batchnorm, make_conv
from ..subpixel_conv import PhaseConv, PhaseUp, depth_to_space
from .generator import Decoder
from .model import AnimationModel

# Phases hold 16/9 of a kernel's weights. Where a layer has few pixels, its weights are what takes
# time and space: there it is left alone. Pixels a side of the layer's input.
SMALLEST_SIDE = 16


def folded(model: AnimationModel) -> AnimationModel:
    """A copy, in eval mode, with nothing but BatchNorm folded: no larger than the model."""
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batchnorm(plain)
    return plain


def rewritten(model: AnimationModel) -> AnimationModel:
    """A copy of the model, in eval mode, with all the rewrites; the model itself is untouched."""
    fast = folded(model)
    small = model.config.image_size // 4
    for hourglass in (fast.keypoint_detector.hourglass, fast.dense_motion.hourglass):
        split_hourglass(hourglass, small)
    generator = fast.generator
    generator.content = split_decoder(generator.content)
    if generator.dual:
        generator.texture = split_decoder(generator.texture)
    return fast


def split_hourglass(hourglass: Hourglass, side: int) -> None:
    """Split the up blocks that pay, in place; ``side``: pixels a side of the hourglass's input."""
    ups = hourglass.ups
    for i, up in enumerate(ups):
        if up.mode == "nearest" and side >> (len(ups) - i) >= SMALLEST_SIDE:
            ups[i] = PhaseUp(up.conv)


def split_decoder(decoder: Decoder) -> nn.Module:
    """The decoder with its up blocks split, where they are nearest."""
    if any(up.mode != "nearest" for up in decoder.ups):
        return decoder
    if decoder.skip:
        return PhaseDecoder(decoder)
    decoder.ups = nn.ModuleList(PhaseUp(up.conv) for up in decoder.ups)
    return decoder


class PhaseDecoder(nn.Module):
    """A concatenating Decoder; up block i reads the feature enlarged x 2^i, then x2."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.first = PhaseUp(decoder.ups[0].conv)  # both inputs have one size
        self.deep, self.skip = nn.ModuleList(), nn.ModuleList()
        self.factors = [2 ** (i + 1) for i in range(1, len(decoder.ups))]
        for up, factor in zip(decoder.ups[1:], self.factors, strict=True):
            conv, own = up.conv, up.conv.in_channels - decoder.skip
            self.deep.append(PhaseConv(make_conv(conv.weight[:, :own], conv.bias, like=conv), 2))
            self.skip.append(PhaseConv(make_conv(conv.weight[:, own:], None, like=conv), factor))
        self.final = decoder.final

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        x = self.first(torch.cat([x, feature], dim=1))
        for deep, skip, factor in zip(self.deep, self.skip, self.factors, strict=True):
            own = depth_to_space(torch.cat(deep(x), dim=1), 2)
            x = F.relu(own + depth_to_space(torch.cat(skip(feature), dim=1), factor))
        return self.final(x).float()
