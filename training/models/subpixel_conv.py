"""Nearest upsampling and conv3 as small convolutions, one for each phase of the result.

A x2 enlargement followed by a conv3 reads every input pixel several times with different taps. Taps
that read one pixel can be added up beforehand: 4/9 of the work for x2, 25/144 for x4, to float
rounding the same numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolutions import make_conv
from .operators import standard_node


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
    """Nearest upsampling x factor, then conv3, as phases for :func:`depth_to_space`.

    Pixel factor * i + a of a row of the result reads pixels floor((factor * i + a + t - 1) /
    factor) of the input for t = 0, 1, 2: taps that read the same pixel are added up, once and for
    all. Phases between the first and the last read one pixel only and are equal.
    """

    def __init__(self, conv: nn.Conv2d, factor: int) -> None:
        super().__init__()
        if (
            conv.kernel_size != (3, 3)
            or conv.padding != (1, 1)
            or conv.stride != (1, 1)
            or conv.groups != 1
        ):
            raise ValueError("only a conv3 of padding 1 can be split into phases")
        taps = [tuple((a + t - 1) // factor for t in range(3)) for a in range(factor)]
        kinds = [(rows, columns) for rows in taps for columns in taps]
        distinct = list(dict.fromkeys(kinds))
        self.order = [distinct.index(kind) for kind in kinds]
        self.convs = nn.ModuleList(self._phase(conv, rows, columns) for rows, columns in distinct)

    @staticmethod
    def _phase(conv: nn.Conv2d, rows: tuple[int, ...], columns: tuple[int, ...]) -> PaddedConv:
        def gather(offsets: tuple[int, ...]) -> Tensor:
            low, high = min(offsets), max(offsets)
            return torch.tensor(
                [[float(o == at) for o in offsets] for at in range(low, high + 1)]
            ).double()

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
