"""Feature networks: torchvision's names and numbers, files that end early, files that are wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lively import noise
from torch import Tensor

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.models.image_losses import perceptual
from sonomime.training.models.perceptual import FeatureNetwork

# By torchvision's numbers: inputs and outputs, and of SqueezeNet's blocks what is between.
VGG = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256)}
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
State = dict[str, Tensor]


def filled(layers: dict[str, tuple[int, int, int]]) -> State:
    """Random weights of convolutions: inputs, outputs, kernel; and some that are not needed."""
    torch.manual_seed(0)
    state = {"classifier.0.weight": torch.zeros(2, 2)}
    for key, (inputs, outputs, kernel) in layers.items():
        scale = (2 / (inputs * kernel**2)) ** 0.5
        state[f"features.{key}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel)
        state[f"features.{key}.bias"] = 0.1 * torch.randn(outputs)
    return state


def vgg19(last: int = 10) -> State:
    """The first layers of torchvision's vgg19."""
    return filled({str(index): (*sides, 3) for index, sides in VGG.items() if index <= last})


def squeezenet() -> State:
    """torchvision's squeezenet1_1 up to features.7, and a layer beyond."""
    layers = {"0": (3, 64, 3), "9.squeeze": (2, 2, 1)}
    for index, (inputs, squeeze, expand) in FIRES.items():
        layers[f"{index}.squeeze"] = (inputs, squeeze, 1)
        layers |= {f"{index}.expand{k}x{k}": (squeeze, expand, k) for k in (1, 3)}
    return filled(layers)


def network(folder: Path, name: str, state: Any) -> FeatureNetwork:
    torch.save(state, folder / "weights.pth")
    return FeatureNetwork(name, str(folder / "weights.pth"))


def expected(name: str, state: State, image: Tensor) -> list[Tensor]:
    """The tapped features, layer by layer."""

    def conv(key: str, x: Tensor, **settings: int) -> Tensor:
        weight, bias = (state[f"features.{key}.{part}"] for part in ("weight", "bias"))
        return F.relu(F.conv2d(x, weight, bias, **settings))

    def fire(index: int, x: Tensor) -> Tensor:
        x = conv(f"{index}.squeeze", x)
        sides = conv(f"{index}.expand3x3", x, padding=1)
        return torch.cat([conv(f"{index}.expand1x1", x), sides], 1)

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image.expand(-1, 3, -1, -1) - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    if name == "vgg19":
        one = conv("0", x, padding=1)
        two = conv("5", F.max_pool2d(conv("2", one, padding=1), 2), padding=1)
        three = conv("10", F.max_pool2d(conv("7", two, padding=1), 2), padding=1)
        return [one, two, three]
    one = conv("0", x, stride=2)
    two = fire(4, fire(3, F.max_pool2d(one, 3, 2, ceil_mode=True)))
    return [one, two, fire(7, fire(6, F.max_pool2d(two, 3, 2, ceil_mode=True)))]


@pytest.mark.parametrize(("name", "state"), [("vgg19", vgg19()), ("squeezenet", squeezenet())])
def test_features_and_their_loss_are_the_formulas(tmp_path: Path, name: str, state: State) -> None:
    found = network(tmp_path, name, state)
    for image in (noise(2, 1, 32, 32), noise(2, 3, 64, 64)):
        pairs = zip(found(image), expected(name, state, image), strict=True)
        assert all(torch.allclose(ours, wanted, atol=1e-4) for ours, wanted in pairs)
    # L1, for SqueezeNet relative to the real features.
    fake, real = ([noise(2, 1, side, side, seed=seed) for side in (64, 32)] for seed in (1, 2))
    fake[0].requires_grad_()
    real[0].requires_grad_()
    total = sum(
        float((a - b).detach().abs().mean() / (1 if name == "vgg19" else b.detach().abs().mean()))
        for f, r in zip(fake, real, strict=True)
        for a, b in zip(found(f), found(r), strict=True)
    )
    loss = perceptual(found, fake, real)
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)
    loss.backward()
    assert fake[0].grad is not None and fake[0].grad.abs().sum() > 0 and real[0].grad is None
    assert perceptual(found, real, real) == 0
    assert not any(p.requires_grad for p in found.parameters()) and not found.training


def test_a_file_that_ends_early_serves_as_far_as_it_reaches(tmp_path: Path) -> None:
    taps = [network(tmp_path, "vgg19", vgg19(last)).taps for last in (0, 7, 10)]
    assert taps == [(1,), (1, 6), (1, 6, 11)]


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def without(key: str) -> State:
    return {name: tensor for name, tensor in vgg19().items() if not name.startswith(key)}


WRONG: dict[str, tuple[str, Any]] = {
    "a list": ("vgg19", [1]),
    "text for a tensor": ("vgg19", {"features.0.weight": "text"}),
    "empty": ("vgg19", {}),
    "no number": ("vgg19", {"features.x.weight": torch.zeros(1)}),
    "a gap": ("vgg19", without("features.2.")),
    "other shapes": ("vgg19", vgg19() | {"features.0.weight": torch.zeros(64, 1, 3, 3)}),
    "half the last layer": ("vgg19", without("features.10.bias")),
    "another network": ("squeezenet", vgg19()),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_files_of_something_else_are_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        network(tmp_path, *WRONG[wrong])
    assert str(tmp_path / "weights.pth") in caught.value.message and caught.value.hint


def test_missing_damaged_and_malicious_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("these are no weights\n" * 50)
    torch.save(vgg19(0), tmp_path / "short.pth")
    (tmp_path / "short.pth").write_bytes((tmp_path / "short.pth").read_bytes()[:-300])
    torch.save({**vgg19(), "more": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    for name in ("none.pth", "text.pth", "short.pth", "evil.pth"):
        with pytest.raises(ConfigError, match=name) as caught:
            FeatureNetwork("vgg19", str(tmp_path / name))
        assert caught.value.hint and "weights_only" not in caught.value.message
    assert not (tmp_path / "ran").exists()
