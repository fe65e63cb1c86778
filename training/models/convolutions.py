"""Convolutions made of others: BatchNorm folded in, heads merged, inputs appended."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Residual, Same


def make_conv(
    weight: Tensor,
    bias: Tensor | None,
    like: nn.Conv2d,
    padding: int | None = None,
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
    """The same map with mean 0 and variance 1: nothing is left to overflow in half precision."""
    scale, shift = _affine(norm)
    none = torch.finfo(torch.float32).tiny  # 1 + tiny is 1; some versions of torch refuse 0
    plain = nn.BatchNorm2d(norm.num_features, eps=none).to(norm.weight).eval()
    plain.weight.data.copy_(scale)
    plain.bias.data.copy_(shift)
    return plain


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
