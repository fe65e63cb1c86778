"""How the background moves: one affine map of the plane, from a pair of images.

FOMM's background stands still. Where the probe moves, everything moves; keypoints would have to
follow that too. The map is found as later models of this line do it (Zhao and Zhang, CVPR 2022): by
a network that sees both images and starts at the identity.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..geometry import in_float32
from .motion import Down

DOWNS = 4


class Background(nn.Module):
    """[A b] of T(z) = A z + b, which leads from driving to source coordinates, half_pixel.

    DOWNS blocks of width, twice that ... on both images, their mean, and one linear layer.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        widths = [2 * channels, *(width * 2**i for i in range(DOWNS))]
        self.downs = nn.Sequential(*(Down(a, b) for a, b in pairwise(widths)))
        self.affine = nn.Linear(widths[-1], 6)
        nn.init.zeros_(self.affine.weight)
        self.affine.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))

    def forward(self, source_small: Tensor, driving_small: Tensor) -> Tensor:
        """(B, C, h, w) twice -> float32 (B, 2, 3)."""
        both = torch.cat([source_small, driving_small], dim=1)
        return self.read(self.downs(both.to(self.downs[0].conv.weight.dtype)))

    @in_float32
    def read(self, feature: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, 2, 3)."""
        affine: Tensor = self.affine(feature.float().mean(dim=(2, 3)))
        return affine.view(-1, 2, 3)
