"""The lite generator: a frame in about 2 GFLOP on top of the warped source (METHOD, "Lite").

Depth comes before the warp, where it is paid once per source. After the warp the network only
corrects: it gives a shading ``a`` and an offset ``b`` for the warped low-pass (content) and a gate
``g`` for the warped high-pass (texture), so that training starts at the warped source itself, with
its true speckle.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import GeneratorConfig
from ..blocks import upsample
from ..geometry import in_float32, resize_map, warp
from .dense_motion import Motion
from .generator import Prediction


class PlainResidual(nn.Module):
    """x + conv3(ReLU(conv3(x))), no norm: correcting pixels must not depend on the batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class NearestUp(nn.Conv2d):
    """Nearest upsampling x2 -> conv3 -> ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(upsample(x, "nearest")))


class Merge(nn.Conv2d):
    """conv3 -> ReLU of three inputs at S/2: two features, and layers (B, 2C, S, S) folded to it."""

    def forward(self, x: Tensor, detail: Tensor, layers: Tensor) -> Tensor:  # type: ignore[override]
        seen = F.pixel_unshuffle(layers, 2).to(x.dtype)
        return F.relu(super().forward(torch.cat([x, detail, seen], dim=1)))


class LiteGenerator(nn.Module):
    """Corrects the warped source.

    Features: (B, w, S/4, S/4), (B, w/2, S/2, S/2) and layers (B, 2C, S, S).
    """

    feature_names = ("feature", "detail", "layers")

    def __init__(self, config: GeneratorConfig, channels: int, geometry: str) -> None:
        super().__init__()
        self.geometry = geometry
        self.channels = channels
        wide, fine = config.width, config.width // 2
        self.first = nn.Conv2d(4 * channels, fine, 3, padding=1)
        self.detail = PlainResidual(fine)
        self.down = nn.Conv2d(fine, wide, 3, padding=1)
        self.deep = nn.Sequential(*(PlainResidual(wide) for _ in range(config.blocks)))
        self.after = PlainResidual(wide)
        self.up = NearestUp(wide, fine, 3, padding=1)
        self.merge = Merge(2 * fine + 8 * channels, fine, 3, padding=1)
        self.final = nn.Conv2d(fine, 4 * 3 * channels, 3, padding=1)
        nn.init.zeros_(self.final.weight)
        nn.init.zeros_(self.final.bias)  # type: ignore[arg-type]
        taps = torch.exp(-(torch.arange(-4.0, 5.0) ** 2) / (2 * 2.0**2))
        line = (taps / taps.sum()).expand(channels, 1, 1, 9).clone()
        self.register_buffer("blur", line)

    blur: Tensor

    @in_float32
    def low_pass(self, image: Tensor) -> Tensor:
        """Gaussian blur of 2 px; (B, C, S, S) unchanged in shape."""
        line = self.blur.to(image.dtype)
        padded = F.pad(image, (4, 4, 4, 4), mode="replicate")
        rows = F.conv2d(padded, line, groups=self.channels)
        return F.conv2d(rows, line.transpose(2, 3), groups=self.channels)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Source features, once per source: (B, C, S, S) in [0, 1] -> ``feature_names``."""
        low = self.low_pass(image.float())
        x = F.relu(self.first(F.pixel_unshuffle(image, 2).to(self.first.weight.dtype)))
        detail = self.detail(x)
        feature = self.deep(F.avg_pool2d(F.relu(self.down(detail)), 2))
        return feature, detail, torch.cat([low, image.float() - low], dim=1)

    def decode(self, features: tuple[Tensor, ...], motion: Motion) -> Prediction:
        """Warp all three features, occlude the learned two, and correct the warped source.

        The four occlusion maps in order: for ``feature``, for ``detail``, shading and offset of the
        content.
        """
        warped = [warp(f, motion.deformation, self.geometry) for f in features]
        maps = motion.occlusion_map
        feature, detail = (
            f * resize_map(maps[:, i : i + 1], *f.shape[-2:]).to(f.dtype)
            for i, f in enumerate(warped[:2])
        )
        light = resize_map(maps[:, 2:], *warped[2].shape[-2:])
        return self.decode_warped(feature, detail, warped[2], light)

    def decode_warped(
        self, feature: Tensor, detail: Tensor, layers: Tensor, light: Tensor
    ) -> Prediction:
        """Warped features and light (B, 2, S, S): the slow changes of brightness of the pose."""
        x = self.merge(self.up(self.after(feature)), detail, layers)
        shading, offset, gate = F.pixel_shuffle(self.final(x).float(), 2).chunk(3, dim=1)
        low, high = layers.float().chunk(2, dim=1)
        content = (2 * light[:, :1] + shading) * low + offset + light[:, 1:] - 0.5
        texture = (1 + gate) * high
        return Prediction(content + texture, content, texture)
