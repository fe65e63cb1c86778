"""Exact rewrites of a model before its export: the same numbers, for less work.

- BatchNorm becomes part of the convolution before it, or, where none is (first in a residual
  block), a scale and shift.
- Nearest upsampling and conv3 read every input pixel several times with different taps. Taps that
  read the same pixel are added up beforehand: small convolutions at the low resolution, one for
  each phase of the result, then a depth-to-space. 4/9 of the work for x2, 25/144 for x4.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import Hourglass, Residual, Same
from ..operators import standard_node
from .generator import Decoder
from .model import AnimationModel

# Phases hold 16/9 of a kernel's weights, which costs more than it saves where a layer has few
# pixels. Pixels a side of the layer's input.
SMALLEST_SIDE = 16


def folded(model: AnimationModel) -> AnimationModel:
    """A copy, in eval mode, with only BatchNorm folded: no larger than the model."""
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batchnorm(plain)
    return plain


def rewritten(model: AnimationModel) -> AnimationModel:
    """A copy of the model, in eval mode, with all the rewrites."""
    fast = folded(model)
    small = model.config.image_size // 4
    for hourglass in (fast.keypoint_detector.hourglass, fast.dense_motion.hourglass):
        split_hourglass(hourglass, small)
    generator = fast.generator
    generator.content = split_decoder(generator.content)
    if generator.dual:
        generator.texture = split_decoder(generator.texture)
    return fast


# -- convolutions made of others -------------------------------------------------------------------


def make_conv(
    weight: Tensor, bias: Tensor | None, like: nn.Conv2d, padding: int | None = None
) -> nn.Conv2d:
    """A convolution with these weights; what is not given, its dtype too, is as in ``like``."""
    out, per_group, *kernel = weight.shape
    conv = nn.Conv2d(
        per_group * like.groups, out, tuple(kernel),
        stride=like.stride,
        padding=like.padding if padding is None else padding,
        groups=like.groups, bias=bias is not None,
    )  # fmt: skip
    conv.to(like.weight)
    conv.weight.data.copy_(weight)
    if bias is not None:
        conv.bias.data.copy_(bias)  # type: ignore[union-attr]
    return conv.requires_grad_(False)


def merged(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """One convolution that gives the channels of both, of equal kernels and paddings."""
    assert first.bias is not None and second.bias is not None
    weight = torch.cat([first.weight, second.weight])
    return make_conv(weight, torch.cat([first.bias, second.bias]), like=first)


def with_more_inputs(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The same convolution for an input with ``channels`` more channels, of any content."""
    if channels == 0:
        return conv
    return make_conv(F.pad(conv.weight, (0, 0, 0, 0, 0, channels)), conv.bias, like=conv)


def fold_batchnorm(block: nn.Module) -> None:
    """Fold the BatchNorms of a module's blocks (blocks.py) into convolutions, in place."""
    for module in block.modules():
        if isinstance(module, Same) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = _folded(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, Residual) and isinstance(module.norm2, nn.BatchNorm2d):
            module.conv1 = _folded(module.conv1, module.norm2)
            module.norm1 = _scale_shift(module.norm1)
            module.norm2 = nn.Identity()  # type: ignore[assignment]


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm in eval mode, float64."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    scale, shift = _affine(norm)
    bias = shift if conv.bias is None else conv.bias.double() * scale + shift
    return make_conv(conv.weight.double() * scale[:, None, None, None], bias, like=conv)


def _scale_shift(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """The same map with mean 0 and variance 1, so that nothing overflows in half precision."""
    scale, shift = _affine(norm)
    none = torch.finfo(torch.float32).tiny  # 1 + tiny is 1; some versions of torch refuse 0
    plain = nn.BatchNorm2d(norm.num_features, eps=none).to(norm.weight).eval()
    plain.weight.data.copy_(scale)
    plain.bias.data.copy_(shift)
    return plain


# -- upsampling in phases --------------------------------------------------------------------------


class PaddedConv(nn.Module):
    """A convolution that pads (left, right, top, bottom) differently, as torch's cannot."""

    def __init__(self, conv: nn.Conv2d, pads: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv = conv
        self.pads = pads

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            left, right, top, bottom = self.pads
            weight, bias = self.conv.weight, self.conv.bias
            rows = x.shape[2] + top + bottom - weight.shape[2] + 1
            columns = x.shape[3] + left + right - weight.shape[3] + 1
            inputs = (x, weight) if bias is None else (x, weight, bias)
            attributes = {"pads": [top, left, bottom, right]}
            return standard_node(
                "Conv", inputs, (x.shape[0], weight.shape[0], rows, columns), attributes
            )
        return self.conv(F.pad(x, self.pads))


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """(B, factor^2 C, H, W) -> (B, C, factor H, factor W); (a factor + b) C + c is phase (a, b)."""
    batch, channels, height, width = x.shape
    shape = (batch, channels // factor**2, factor * height, factor * width)
    if torch.compiler.is_exporting():
        return standard_node("DepthToSpace", (x,), shape, {"blocksize": factor, "mode": "DCR"})
    split = x.view(batch, factor, factor, shape[1], height, width)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(shape)


class PhaseConv(nn.Module):
    """Nearest upsampling x factor, then a conv3 of padding 1, as phases for `depth_to_space`.

    Pixel factor * i + a of a row of the result reads pixels floor((factor * i + a + t - 1) /
    factor) of the input for t = 0, 1, 2: taps that read the same pixel are added up. Phases between
    the first and the last read one pixel only and are equal.
    """

    def __init__(self, conv: nn.Conv2d, factor: int) -> None:
        super().__init__()
        taps = [tuple((a + t - 1) // factor for t in range(3)) for a in range(factor)]
        kinds = [(rows, columns) for rows in taps for columns in taps]
        distinct = list(dict.fromkeys(kinds))
        self.order = [distinct.index(kind) for kind in kinds]
        self.convs = nn.ModuleList(self._phase(conv, rows, columns) for rows, columns in distinct)

    @staticmethod
    def _phase(conv: nn.Conv2d, rows: tuple[int, ...], columns: tuple[int, ...]) -> PaddedConv:
        def gather(offsets: tuple[int, ...]) -> Tensor:
            places = range(min(offsets), max(offsets) + 1)
            return torch.tensor([[float(o == at) for o in offsets] for at in places]).double()

        weight = torch.einsum(
            "oiyx,ay,bx->oiab", conv.weight.double(), gather(rows), gather(columns)
        )
        pads = (-min(columns), max(columns), -min(rows), max(rows))
        return PaddedConv(make_conv(weight, conv.bias, like=conv, padding=0), pads)

    def forward(self, x: Tensor) -> list[Tensor]:
        results = [conv(x) for conv in self.convs]
        return [results[i] for i in self.order]


class PhaseUp(nn.Module):
    """Nearest upsampling x2 -> conv3 -> ReLU."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.phases = PhaseConv(conv, 2)

    def forward(self, x: Tensor) -> Tensor:
        return depth_to_space(torch.cat([F.relu(phase) for phase in self.phases(x)], dim=1), 2)


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
