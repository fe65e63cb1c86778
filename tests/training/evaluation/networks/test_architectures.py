"""Networks with random weights: sizes, shapes, and arithmetic where the published graph is odd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sonomime.training.evaluation.networks.i3d import I3D, i3d, pad_same
from sonomime.training.evaluation.networks.inception import Block, Inception, inception
from sonomime.training.evaluation.networks.perceptual_distance import (
    VGG16,
    PerceptualDistance,
    alexnet_layers,
    lpips_alex,
    lpips_vgg,
)
from sonomime.training.evaluation.networks.squeezenet import (
    SqueezeNet,
    motion_features,
    squeezenet,
)
from sonomime.training.evaluation.networks.weights import Weights
from sonomime.training.models.perceptual import MEAN, STD, VGG19, vgg_layers

from .fixed import fixed_image, fixed_state


def count(modules: Sequence[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_the_networks_have_the_sizes_of_the_published_ones() -> None:
    assert count(alexnet_layers()) == 2_469_696
    assert count(vgg_layers(VGG16)) == 14_714_688
    assert count(vgg_layers(VGG19[:11])) == 2_325_568  # up to relu3_4
    assert count([SqueezeNet()]) == 722_496
    assert count([Inception()]) == 21_785_568  # without the last layer and the side branch
    assert count([I3D()]) == 12_697_264


@pytest.mark.parametrize(
    ("network", "shape", "features"),
    [
        (SqueezeNet, (2, 1, 64, 64), 512),
        (Inception, (1, 1, 64, 64), 2048),
        pytest.param(I3D, (1, 16, 1, 32, 32), 400, marks=pytest.mark.slow),
    ],
)
def test_features_are_those_of_grey_repeated(
    network: Callable[[], nn.Module], shape: tuple[int, ...], features: int
) -> None:
    torch.manual_seed(0)
    module, grey = network().eval(), torch.rand(shape)
    colour = [*shape]
    colour[-3] = 3
    with torch.inference_mode():
        made, again = module(grey), module(grey.expand(colour))
    assert made.shape == (shape[0], features) and made.dtype == torch.float32
    assert torch.allclose(made, again, atol=1e-5) and made.std() > 0


def filled(build: Callable[..., nn.Module], *parts: nn.Module) -> nn.Module:
    """A network with fixed weights, given as a file with the keys of these parts would be."""
    files = [Weights(Path("x"), "", fixed_state(shapes(part))) for part in parts]
    return build(*files)


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def trunk(layers: Sequence[nn.Module]) -> nn.Module:
    module = nn.Module()
    module.features = nn.ModuleList(layers)
    return module


@pytest.mark.parametrize(
    ("build", "part", "shape", "places", "expected"),
    [
        (
            squeezenet,
            SqueezeNet,
            (1, 1, 64, 64),
            [0, 1, 300, 511],
            [0.15026208, 0.41635296, 22.581524, 5.9762177],
        ),
        (
            inception,
            Inception,
            (1, 1, 64, 64),
            [0, 320, 1088, 1856, 2047],
            [1.24696, 0.1823988, 4.435398, 18.821453, 33.045242],
        ),
        pytest.param(
            i3d,
            I3D,
            (1, 16, 1, 224, 224),
            [0, 1, 200, 399],
            [7.997797, 6.8164325, -13.529318, -4.0519743],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_with_the_same_weights_they_give_what_the_published_ports_give(
    build: Callable[..., nn.Module],
    part: Callable[[], nn.Module],
    shape: tuple[int, ...],
    places: list[int],
    expected: list[float],
) -> None:
    """By torchvision 0.28.0, pytorch-fid 0.3.0, pytorch-i3d (whose key names these are, too)."""
    with torch.inference_mode():
        made = filled(build, part())(fixed_image(*shape))[0]
    assert made[places].tolist() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("build", "layers", "channels", "expected"),
    [
        (lpips_alex, alexnet_layers(), (64, 192, 384, 256, 256), 0.024520904),
        (lpips_vgg, vgg_layers(VGG16), (64, 128, 256, 512, 512), 0.011459748),
    ],
)
def test_with_the_same_weights_lpips_gives_what_the_published_code_gives(
    build: Callable[..., PerceptualDistance],
    layers: Sequence[nn.Module],
    channels: tuple[int, ...],
    expected: float,
) -> None:
    """By lpips 0.1.4, version 0.1."""
    lins = PerceptualDistance(layers, (0,), channels).lins
    network = filled(build, trunk(layers), lins)
    with torch.inference_mode():
        a, b = (network(fixed_image(1, 1, 64, 64, seed=seed)) for seed in (1, 2))
        assert float(network.distance(a, b)) == pytest.approx(expected, rel=1e-3)


def test_the_distance_is_the_sum_of_weighted_squares_of_unit_features() -> None:
    """Written out in numpy, pixel by pixel, for two small layers."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU()]
    weighted = PerceptualDistance(layers, (1, 3), (4, 5)).eval()
    plain = PerceptualDistance(layers, (1, 3)).eval()
    a, b = torch.rand(2, 3, 9, 8), torch.rand(2, 3, 9, 8)

    def by_hand(weights: Sequence[np.ndarray]) -> list[float]:
        total = [0.0, 0.0]
        for depth, weight in zip((2, 4), weights, strict=True):
            features = []
            for image in (a, b):
                x = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
                for layer in layers[:depth]:
                    x = layer(x)
                features.append(x.detach().double().numpy())
            n, _, height, width = features[0].shape
            for i in range(n):
                for y in range(height):
                    for x_ in range(width):
                        u, v = (f[i, :, y, x_] for f in features)
                        gap = u / (math.hypot(*u) + 1e-10) - v / (math.hypot(*v) + 1e-10)
                        total[i] += float(weight @ gap**2) / (height * width)
        return total

    lins = [
        lin["model"][1].weight.detach().double().numpy().ravel() for lin in weighted.lins.values()
    ]
    with torch.inference_mode():
        assert weighted.distance(weighted(a), weighted(b)).tolist() == pytest.approx(by_hand(lins))
        ones = [np.ones(4), np.ones(5)]
        assert plain.distance(plain(a), plain(b)).tolist() == pytest.approx(by_hand(ones))
        assert weighted.distance(weighted(a), weighted(a)).tolist() == [0, 0]


@pytest.mark.parametrize(("pool", "beside_a_nine"), [("mean", 1.0), ("max", 9.0)])
def test_the_pools_of_inception_do_not_count_the_border(pool: str, beside_a_nine: float) -> None:
    block = Block(1, [[("1x1", 1, 1)]], pool, 1).eval()
    nn.init.ones_(block.branch_pool.conv.weight)
    nine = torch.zeros(1, 1, 5, 5)
    nine[..., 2, 2] = 9
    with torch.inference_mode():
        flat, spread = block(torch.ones(1, 1, 5, 5))[0, 1], block(nine)[0, 1]
    scale = 1 / math.sqrt(1 + 1e-3)  # of the batch norm
    assert flat.flatten().tolist() == pytest.approx([scale] * 25)
    assert spread[1, 1] == pytest.approx(beside_a_nine * scale) and spread[0, 0] == 0


@pytest.mark.parametrize(
    ("kernel", "stride", "front", "size"), [(7, 2, 2, 112), (3, 2, 0, 112), (3, 1, 1, 224)]
)
def test_cubes_are_padded_as_tensorflow_pads(
    kernel: int, stride: int, front: int, size: int
) -> None:
    x = torch.ones(1, 1, 1, 1, 224)
    padded = pad_same(x, (1, 1, kernel), (1, 1, stride))[0, 0, 0, 0]
    assert padded.argmax() == front
    assert (len(padded) - kernel) // stride + 1 == size


def test_a_window_is_described_by_its_mean_and_its_steps() -> None:
    frames: Tensor = torch.tensor([[0.0, 1.0], [3.0, 1.0], [-1.0, 1.0]])
    made = motion_features(frames)
    assert made.tolist() == pytest.approx([2 / 3, 1, math.sqrt((9 + 16) / 2), 0])
