"""Exact rewrites of a model before its export: the same numbers, for less work.

- BatchNorm becomes part of the convolution before it; where none is (a residual block's first), a
  scale and shift.
- Nearest upsampling and conv3 become small convolutions at the low resolution, one per phase of the
  result, and a depth-to-space: 4/9 of the work for x2, 25/144 for x4.
- Blur, subsampling and folding of the detector's input become one strided convolution.
- Lite: the convolution of concatenated, folded inputs becomes a sum of convolutions of each.
"""

from __future__ import annotations

import copy

from torch import nn

from ..training.models.animator import AnimationModel
from ..training.models.blocks import Hourglass
from ..training.models.generator import Decoder
from ..training.models.lite import LiteGenerator
from .convolutions import SumMerge, fold_batchnorm, unshuffled_blur
from .phases import PhaseDecoder, PhaseUp

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
    detector, generator = fast.keypoint_detector, fast.generator
    detector.down, detector.unshuffle = unshuffled_blur(detector.down, detector.unshuffle), 1
    small = model.config.image_size // 4
    for hourglass in (detector.hourglass, fast.dense_motion.hourglass):
        split_hourglass(hourglass, small)
    if isinstance(generator, LiteGenerator):
        generator.up, generator.merge = PhaseUp(generator.up), SumMerge(generator.merge)
    else:
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
