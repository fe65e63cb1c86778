"""LPIPS 0.1, and the same distance on other features (Zhang et al. 2018, arXiv 1801.03924).

The features of some layers are scaled to length 1 at each place. The squared differences are summed
over the channels, with the weight of each channel where there are any, averaged over the places and
summed over the layers. The input scaling of LPIPS, on [-1, 1], is torchvision's on [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...models.perceptual import MEAN, STD, VGG19, vgg_layers
from .weights import Weights, fill

VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0: pool
_EPS = 1e-10


def alexnet_layers() -> list[nn.Module]:
    """Layers up to relu5, numbered as torchvision numbers them."""
    pool = nn.MaxPool2d(3, 2)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), pool]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), pool]
    for inputs, outputs in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return layers


class PerceptualDistance(nn.Module):
    """The distance on the outputs of the layers `taps`; unweighted without `channels`.

    Args:
        channels: of each tap, where its linear layer weighs them.
    """

    mean: Tensor
    std: Tensor
    side = None  # pictures are seen at their own size

    def __init__(
        self, layers: Sequence[nn.Module], taps: Sequence[int], channels: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.features = nn.ModuleList(layers[: self.taps[-1] + 1])
        one = (nn.Sequential(nn.Identity(), nn.Conv2d(c, 1, 1, bias=False)) for c in channels)
        # Keys as in the published files: lin0.model.1.weight.
        self.lins = nn.ModuleDict(
            {f"lin{i}": nn.ModuleDict({"model": m}) for i, m in enumerate(one)}
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 1 or 3, H, W) in [0, 1] -> features of length 1 at each place, by layer."""
        x = (image.expand(-1, 3, -1, -1) - self.mean) / self.std
        made = [x := layer(x) for layer in self.features]
        kept = (made[tap] for tap in self.taps)
        return [x / (x.square().sum(1, keepdim=True).sqrt() + _EPS) for x in kept]

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """The distances (B,) of pictures with these features."""
        squares = [(x - y).square() for x, y in zip(a, b, strict=True)]
        if self.lins:
            lins = self.lins.values()
            squares = [lin["model"](x) for lin, x in zip(lins, squares, strict=True)]
        return torch.stack([x.sum(1).mean((1, 2)) for x in squares]).sum(0)


def lpips_alex(trunk: Weights, lins: Weights) -> PerceptualDistance:
    """LPIPS on AlexNet: relu1 to relu5."""
    made = PerceptualDistance(alexnet_layers(), (1, 4, 7, 9, 11), (64, 192, 384, 256, 256))
    return _filled(made, trunk, lins)


def lpips_vgg(trunk: Weights, lins: Weights) -> PerceptualDistance:
    """LPIPS on VGG16: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""
    channels = (64, 128, 256, 512, 512)
    made = PerceptualDistance(vgg_layers(VGG16), (3, 8, 15, 22, 29), channels)
    return _filled(made, trunk, lins)


def lpips_like(trunk: Weights, lins: Weights) -> PerceptualDistance:
    """Another metric in the layout of LPIPS: AlexNet if the first kernel is 11 wide, else VGG16."""
    first = trunk.state.get("features.0.weight")
    alex = first is not None and first.shape[-1:] == (11,)
    return lpips_alex(trunk, lins) if alex else lpips_vgg(trunk, lins)


def vgg_distance(trunk: Weights) -> PerceptualDistance:
    """On VGG19, unweighted: relu1_2, relu2_2, relu3_4."""
    made = PerceptualDistance(vgg_layers(VGG19), (3, 8, 17))
    return _filled(made, trunk)


def _filled(
    made: PerceptualDistance, trunk: Weights, lins: Weights | None = None
) -> PerceptualDistance:
    holder = nn.Module()
    holder.features = made.features  # the trunk's file has no other keys of ours
    fill(holder, trunk)
    if lins is not None:
        fill(made.lins, lins)
    return made.eval()
