"""Feature networks: torchvision's names and numbers, files that end early, files that are wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.models.image_losses import perceptual
from sonomime.training.models.perceptual import FeatureNetwork

VGG_CONVS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256)}
VGG_REST = {12: (256, 256), 14: (256, 256), 16: (256, 256), 19: (256, 512)}
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "weights"
State = dict[str, Tensor]


class Filler:
    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.state: State = {}

    def conv(self, key: str, inputs: int, outputs: int, kernel: int) -> None:
        scale = (2 / (inputs * kernel**2)) ** 0.5
        shape = (outputs, inputs, kernel, kernel)
        self.state[f"{key}.weight"] = scale * torch.randn(shape, generator=self.random)
        self.state[f"{key}.bias"] = 0.1 * torch.randn(outputs, generator=self.random)


def vgg19(convs: dict[int, tuple[int, int]] = VGG_CONVS) -> State:
    """The first layers, as torchvision's vgg19 names them, and some of its classifier."""
    filler = Filler()
    for index, (inputs, outputs) in convs.items():
        filler.conv(f"features.{index}", inputs, outputs, 3)
    return {**filler.state, "classifier.0.weight": torch.zeros(2, 2)}


def squeezenet() -> State:
    """torchvision's squeezenet1_1 up to features.7, and a layer beyond."""
    filler = Filler()
    filler.conv("features.0", 3, 64, 3)
    for index, (inputs, squeeze, expand) in FIRES.items():
        filler.conv(f"features.{index}.squeeze", inputs, squeeze, 1)
        filler.conv(f"features.{index}.expand1x1", squeeze, expand, 1)
        filler.conv(f"features.{index}.expand3x3", squeeze, expand, 3)
    filler.conv("features.9.squeeze", 2, 2, 1)
    return filler.state


def saved(folder: Path, state: Any) -> str:
    path = folder / "weights.pth"
    torch.save(state, path)
    return str(path)


def noise(channels: int, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(seed))


def normalised(image: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = torch.cat([image] * 3, 1) if image.shape[1] == 1 else image
    return (rgb - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def conv(state: State, key: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    return F.relu(F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], stride, padding))


@pytest.mark.parametrize("channels", [1, 3])
def test_vgg19_numbers(tmp_path: Path, channels: int) -> None:
    state, image = vgg19(), noise(channels)
    network = FeatureNetwork("vgg19", saved(tmp_path, state))
    one = conv(state, "features.0", normalised(image), padding=1)
    x = F.max_pool2d(conv(state, "features.2", one, padding=1), 2)
    two = conv(state, "features.5", x, padding=1)
    x = F.max_pool2d(conv(state, "features.7", two, padding=1), 2)
    three = conv(state, "features.10", x, padding=1)
    found = network(image)
    assert len(found) == 3 and not network.normalise
    for ours, expected in zip(found, (one, two, three), strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_squeezenet_numbers(tmp_path: Path, channels: int) -> None:
    state, image = squeezenet(), noise(channels, 64)
    network = FeatureNetwork("squeezenet", saved(tmp_path, state))

    def fire(index: int, x: Tensor) -> Tensor:
        x = conv(state, f"features.{index}.squeeze", x)
        sides = conv(state, f"features.{index}.expand3x3", x, padding=1)
        return torch.cat([conv(state, f"features.{index}.expand1x1", x), sides], 1)

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    one = conv(state, "features.0", normalised(image), stride=2)
    two = fire(4, fire(3, pool(one)))
    three = fire(7, fire(6, pool(two)))
    found = network(image)
    assert len(found) == 3 and network.normalise
    for ours, expected in zip(found, (one, two, three), strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("convs", "taps"),
    [
        ({0: (3, 64)}, (1,)),
        ({k: VGG_CONVS[k] for k in (0, 2, 5, 7)}, (1, 6)),
        ({**VGG_CONVS, **VGG_REST}, (1, 6, 11, 20)),
    ],
)
def test_a_file_that_ends_early_serves_as_far_as_it_reaches(
    tmp_path: Path, convs: dict[int, tuple[int, int]], taps: tuple[int, ...]
) -> None:
    assert FeatureNetwork("vgg19", saved(tmp_path, vgg19(convs))).taps == taps


@pytest.mark.parametrize("name", ["vgg19", "squeezenet"])
def test_loss_is_l1_and_for_squeezenet_relative_to_the_real_features(
    tmp_path: Path, name: str
) -> None:
    state = vgg19() if name == "vgg19" else squeezenet()
    network = FeatureNetwork(name, saved(tmp_path, state))
    fake, real = ([noise(1, side, seed) for side in (64, 32)] for seed in (1, 2))
    expected = sum(
        float((a - b).abs().mean() / (1 if name == "vgg19" else b.abs().mean()))
        for f, r in zip(fake, real, strict=True)
        for a, b in zip(network(f), network(r), strict=True)
    )
    assert float(perceptual(network, fake, real)) == pytest.approx(expected, rel=1e-5)


def test_gradient_reaches_the_prediction_alone(tmp_path: Path) -> None:
    network = FeatureNetwork("squeezenet", saved(tmp_path, squeezenet()))
    fake, real = noise(1, 64, 1).requires_grad_(), noise(1, 64, 2).requires_grad_()
    perceptual(network, [fake], [real]).backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0 and real.grad is None
    assert perceptual(network, [real], [real]) == 0
    assert not any(p.requires_grad for p in network.parameters()) and not network.training


# -- wrong files -----------------------------------------------------------------------------------


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


WRONG: dict[str, tuple[str, Any]] = {
    "a list": ("vgg19", [1]),
    "text for a tensor": ("vgg19", {"features.0.weight": "text"}),
    "empty": ("vgg19", {}),
    "other names": ("vgg19", {"conv1.weight": torch.zeros(1)}),
    "no number": ("vgg19", {"features.x.weight": torch.zeros(1)}),
    "a gap": ("vgg19", {k: v for k, v in vgg19().items() if not k.startswith("features.2.")}),
    "other shapes": ("vgg19", vgg19({0: (1, 64)})),
    "half a layer": ("vgg19", {k: v for k, v in vgg19().items() if k != "features.2.bias"}),
    "another network": ("squeezenet", vgg19()),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_files_of_something_else_are_refused(tmp_path: Path, wrong: str) -> None:
    name, state = WRONG[wrong]
    path = saved(tmp_path, state)
    with pytest.raises(ConfigError) as caught:
        FeatureNetwork(name, path)
    assert path in caught.value.message and caught.value.hint


def test_missing_damaged_and_malicious_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("these are no weights\n" * 50)
    whole = Path(saved(tmp_path, vgg19({0: (3, 64)})))
    (tmp_path / "short.pth").write_bytes(whole.read_bytes()[:-300])
    torch.save({**vgg19(), "more": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    for name in ("none.pth", "text.pth", "short.pth", "evil.pth"):
        with pytest.raises(ConfigError, match=name) as caught:
            FeatureNetwork("vgg19", str(tmp_path / name))
        assert caught.value.hint and "weights_only" not in caught.value.message
    assert not (tmp_path / "ran").exists()
