"""Feature networks for the perceptual loss: VGG19 and SqueezeNet 1.1.

Their weights are files with torchvision's key names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...runtime.support.errors import CheckpointError, ConfigError
from ..weights_file import read_weights_only

VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)  # 0: pool
VGG19_TAPS = (1, 6, 11, 20, 29)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 (Eq. 6)
SQUEEZENET_TAPS = (1, 4, 7)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Fire(nn.Module):
    """SqueezeNet's block."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1)


def vgg_layers(widths: Sequence[int]) -> list[nn.Module]:
    """Layers of a VGG network, numbered as torchvision numbers them; width 0 is a pool."""
    layers: list[nn.Module] = []
    channels, pool = 3, [nn.MaxPool2d(2)]
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else pool
        channels = width or channels
    return layers


def squeezenet_layers() -> list[nn.Module]:
    """Layers up to features.7, numbered as torchvision numbers them."""
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    fires = [Fire(64, 16, 64), Fire(128, 16, 64), pool, Fire(128, 32, 128), Fire(256, 32, 128)]
    return [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, *fires]


class FeatureNetwork(nn.Module):
    """Frozen features; ``normalise``: the loss divides by the real ones' mean magnitude."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        # SqueezeNet's raw differences are two orders larger than L1 on pixels; VGG's are used raw,
        # as in the paper.
        self.normalise = name == "squeezenet"
        layers = squeezenet_layers() if self.normalise else vgg_layers(VGG19)
        taps = SQUEEZENET_TAPS if self.normalise else VGG19_TAPS
        state = _read(Path(weights))
        need = [i for i, layer in enumerate(layers) if layer.state_dict()]
        present = [i for i in need if any(key.startswith(f"features.{i}.") for key in state)]
        # A file that ends early (at relu3_4, say) is used with the taps that it reaches.
        reach = next((i for i in need if i > max(present, default=0)), len(layers))
        self.taps = tuple(tap for tap in taps if tap < reach)
        self.features = nn.ModuleList(layers[: self.taps[-1] + 1])
        wanted = self.state_dict().keys()
        try:
            self.load_state_dict({k: v.float() for k, v in state.items() if k in wanted})
        except RuntimeError as error:
            raise ConfigError(
                f"{weights}: not weights of {name} with torchvision's key names: {error}",
                "see docs/training.md",
            ) from error
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 1 or 3, H, W) in [0, 1] -> the tapped features; grey is repeated to 3 channels."""
        x = (image.expand(-1, 3, -1, -1) - self.mean) / self.std
        made = [x := layer(x) for layer in self.features]
        return [made[tap] for tap in self.taps]


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such weights file",
            "give loss.perceptual_weights an existing path, or loss.perceptual_network=none",
        )
    try:
        state = read_weights_only(path, "only use weights from a source that you trust")
    except CheckpointError as error:
        raise ConfigError(error.message, error.hint) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f"{path}: holds no state dict", "give a state dict saved by torch")
    return {str(key): value for key, value in state.items()}
