"""Inception of 2015-12-05, whose 2,048 features FID and KID are made of (Heusel et al. 2017).

The layers have the key names of the published file (a port of the TensorFlow graph). That graph
differs from the Inception v3 of Szegedy et al. (2015, arXiv 1512.00567): average pools do not count
the border, and the last block pools by the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .weights import Weights, fill

Branch = Sequence[tuple[str, int, int | tuple[int, int]]]
"""Convolutions one after the other: name, channels, kernel. "3a" and "3b": side by side."""


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int, pad: bool
    ) -> None:
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2) if pad else 0
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Block(nn.Module):
    """Branches of convolutions and a pool, whose outputs are concatenated.

    Args:
        pool: `mean` or `max`, each followed by a convolution to `pooled` channels; `half`: the
            block halves the picture, in its pool and in the last convolution of each branch.
    """

    def __init__(self, inputs: int, branches: Sequence[Branch], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.pool = pool
        self.chains: list[list[str]] = []
        self.outputs = pooled or inputs
        for branch in branches:
            channels = inputs
            for name, outputs, kernel in branch:
                halves = pool == "half" and name == branch[-1][0]
                layer = Convolution(channels, outputs, kernel, 1 + halves, not halves)
                self.add_module(f"branch{name}", layer)
                side = name.endswith("a")  # its neighbour reads the same
                channels = channels if side else outputs
                self.outputs += outputs if side or name == branch[-1][0] else 0
            self.chains.append([f"branch{name}" for name, _, _ in branch])
        if pooled:
            self.branch_pool = Convolution(inputs, pooled, 1, 1, True)

    def forward(self, x: Tensor) -> Tensor:
        made = []
        for chain in self.chains:
            y = x
            for name in chain:
                layer = self.get_submodule(name)
                if name.endswith("a"):
                    made.append(layer(y))
                else:
                    y = layer(y)
            made.append(y)
        if self.pool == "half":
            return torch.cat([*made, F.max_pool2d(x, 3, 2)], 1)
        if self.pool == "mean":
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        else:
            pooled = F.max_pool2d(x, 3, 1, 1)
        return torch.cat([*made, self.branch_pool(pooled)], 1)


def _wide(inputs: int, pooled: int) -> Block:
    five = [("5x5_1", 48, 1), ("5x5_2", 64, 5)]
    double = [("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3), ("3x3dbl_3", 96, 3)]
    return Block(inputs, [[("1x1", 64, 1)], five, double], "mean", pooled)


def _crossed(width: int) -> Block:
    row, column = (1, 7), (7, 1)
    seven = [("7x7_1", width, 1), ("7x7_2", width, row), ("7x7_3", 192, column)]
    double = [("7x7dbl_1", width, 1), ("7x7dbl_2", width, column), ("7x7dbl_3", width, row)]
    double += [("7x7dbl_4", width, column), ("7x7dbl_5", 192, row)]
    return Block(768, [[("1x1", 192, 1)], seven, double], "mean", 192)


def _split(inputs: int, pool: str) -> Block:
    row, column = (1, 3), (3, 1)
    three = [("3x3_1", 384, 1), ("3x3_2a", 384, row), ("3x3_2b", 384, column)]
    double = [("3x3dbl_1", 448, 1), ("3x3dbl_2", 384, 3)]
    double += [("3x3dbl_3a", 384, row), ("3x3dbl_3b", 384, column)]
    return Block(inputs, [[("1x1", 320, 1)], three, double], pool, 192)


def _first_half() -> Block:
    double = [("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3), ("3x3dbl_3", 96, 3)]
    return Block(288, [[("3x3", 384, 3)], double], "half")


def _second_half() -> Block:
    seven = [("7x7x3_1", 192, 1), ("7x7x3_2", 192, (1, 7)), ("7x7x3_3", 192, (7, 1))]
    seven += [("7x7x3_4", 192, 3)]
    return Block(768, [[("3x3_1", 192, 1), ("3x3_2", 320, 3)], seven], "half")


class Inception(nn.Module):
    """The network up to its last pool."""

    side = 299

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2, False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, 1, False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, 1, True)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1, 1, False)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, 1, False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _wide(192, 32), _wide(256, 64), _wide(288, 64)
        self.Mixed_6a = _first_half()
        self.Mixed_6b, self.Mixed_6c = _crossed(128), _crossed(160)
        self.Mixed_6d, self.Mixed_6e = _crossed(160), _crossed(192)
        self.Mixed_7a = _second_half()
        self.Mixed_7b, self.Mixed_7c = _split(1280, "mean"), _split(2048, "max")

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] -> (B, 2048).

        Resized to 299 x 299 (bilinear, align_corners=False, no anti-aliasing), scaled to [-1, 1].
        """
        x = F.interpolate(image, (self.side, self.side), mode="bilinear", align_corners=False)
        x = 2 * x.expand(-1, 3, -1, -1) - 1
        for name, layer in self.named_children():
            x = layer(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = F.max_pool2d(x, 3, 2)
        return x.mean((2, 3))


def inception(weights: Weights) -> Inception:
    """With the weights of the published file."""
    made = Inception()
    fill(made, weights)
    return made
