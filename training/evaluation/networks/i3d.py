"""I3D of Kinetics-400 (Carreira and Zisserman 2017, arXiv 1705.07750); FVD is made of its logits.

An Inception v1 inflated to three dimensions. The layers have the key names of pytorch-i3d, a port
of the TensorFlow graph: padding is TensorFlow's SAME, which pads the end more than the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .weights import Weights, fill

_MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
_POOLS = {  # before the layer of this name: kernel and stride, (T, H, W)
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """(B, C, T, H, W) with zeros around, so that a layer gives ceil(size / stride)."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        more = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [more // 2, more - more // 2, *pads]
    return F.pad(x, pads)


def _max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    # What comes in is not negative, so zeros at the border change no maximum.
    return F.max_pool3d(pad_same(x, kernel, stride), tuple(kernel), tuple(stride))


class Convolution(nn.Module):
    """Convolution of a cube without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return self.bn(self.conv3d(x)).relu()


class Mixed(nn.Module):
    """Inception's block: 1x1; 1x1 and 3x3, twice; pool and 1x1."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.b0 = Convolution(inputs, widths[0], 1)
        self.b1a, self.b1b = Convolution(inputs, widths[1], 1), Convolution(widths[1], widths[2], 3)
        self.b2a, self.b2b = Convolution(inputs, widths[3], 1), Convolution(widths[3], widths[4], 3)
        self.b3b = Convolution(inputs, widths[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.b3b(_max_pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], 1)


class I3D(nn.Module):
    """The network up to its 400 logits, averaged over time."""

    side = 224

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Convolution(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Convolution(64, 64, 1)
        self.Conv3d_2c_3x3 = Convolution(64, 192, 3)
        for name, (inputs, widths) in _MIXED.items():
            self.add_module(name, Mixed(inputs, widths))
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, 400, 1)})

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 1 or 3, H, W) in [0, 1], T at least 9 -> (B, 400).

        Frames are resized to 224 x 224 (bilinear, align_corners=False) and scaled to [-1, 1].
        """
        size = (self.side, self.side)
        x = F.interpolate(clips.flatten(0, 1), size, mode="bilinear", align_corners=False)
        x = 2 * x.unflatten(0, clips.shape[:2]).transpose(1, 2).expand(-1, 3, -1, -1, -1) - 1
        for name, layer in self.named_children():
            if name in _POOLS:
                x = _max_pool(x, *_POOLS[name])
            if name != "logits":
                x = layer(x)
        x = F.avg_pool3d(x, (2, 7, 7), 1)
        return self.logits["conv3d"](x).mean((2, 3, 4))


def i3d(weights: Weights) -> I3D:
    """With weights that have the key names of pytorch-i3d."""
    made = I3D()
    fill(made, weights)
    return made
