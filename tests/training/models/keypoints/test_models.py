"""Sizes as in METHOD; detector, dense motion, generators and discriminator do what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lively import SMALL, lively_checkpoint, noise
from torch import nn

from sonomime.training.config import DiscriminatorConfig, KeypointConfig, load_config
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.image_losses import Discriminator
from sonomime.training.models.keypoints.model import AnimationModel
from sonomime.training.models.keypoints.motion import (
    KeypointDetector,
    Keypoints,
    Motion,
    compose_motion,
    local_motions,
)


def keypoints(batch: int, count: int, seed: int) -> Keypoints:
    spread = noise(batch, count, 2, 2, seed=seed + 50) - 0.5
    return Keypoints(noise(batch, count, 2, seed=seed) * 1.6 - 0.8, torch.eye(2) + spread)


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("preset", "override", "detector", "generator"),
    [
        ("fomm", "model.channels=3", 14_215_368, 45_575_391),
        ("ours-ptg", "model.generator.bottleneck=split", 14_225_496, 53_884_540),
    ],
)
def test_parameter_counts_of_method(
    preset: str, override: str, detector: int, generator: int
) -> None:
    with torch.device("meta"):
        model = AnimationModel(load_config(preset, [override]).model)
        assert parameters(Discriminator(DiscriminatorConfig(), 3)) == 2_758_849
    assert parameters(model.keypoint_detector) == detector
    assert parameters(model.dense_motion, model.generator) == generator
    assert sum(map(parameters, model.networks())) == parameters(model)


# -- keypoint detector -----------------------------------------------------------------------------


@pytest.mark.parametrize(("geometry", "side"), [("half_pixel", 64), ("fomm", 58)])
def test_a_blob_in_the_heatmap_is_found_where_it_is_also_in_autocast(
    geometry: str, side: int
) -> None:
    detector = KeypointDetector(KeypointConfig(1, 1, width=2, depth=1), 1, geometry).eval()
    image = noise(1, 1, 256, 256)
    assert detector.heatmap(detector.hourglass(detector.down(image))).shape == (1, 2, side, side)
    assert torch.allclose(detector(image).jacobian, torch.eye(2), atol=1e-6), "at the start"
    at = torch.tensor([[0.3, -0.1], [-0.62, 0.55]])
    away = (make_grid(side, side, geometry) - at[:, None, None]).square().sum(-1)
    field = torch.tensor([1.5, 0.2, -0.3, 0.5, -0.1, 0.2, 0.3, 0.4]).view(1, 8, 1, 1)
    maps = field.expand(1, 8, side, side)
    with torch.autocast("cpu", torch.bfloat16):
        found = detector.read(detector.normalise(-away[None] * 50 * detector.temperature), maps)
    assert (found.value - at).abs().max() < 1e-4
    assert torch.allclose(found.jacobian, field.view(2, 2, 2), atol=1e-5)


# -- dense motion ----------------------------------------------------------------------------------


def test_local_motions_are_their_formula_also_in_autocast_and_masks_weigh_them() -> None:
    source, driving = keypoints(2, 3, 1), keypoints(2, 3, 2)
    grid = make_grid(6, 6, "half_pixel")
    with torch.autocast("cpu", torch.bfloat16):
        motions = local_motions(source, driving, grid)
    assert torch.equal(motions[:, 0], grid.expand(2, 6, 6, 2))
    for b, k in np.ndindex(2, 3):
        affine = source.jacobian[b, k].numpy() @ np.linalg.inv(driving.jacobian[b, k].numpy())
        moved = (grid - driving.value[b, k]).numpy() @ affine.T + source.value[b, k].numpy()
        assert np.abs(motions[b, k + 1].numpy() - moved).max() < 1e-4
    logits = torch.full((2, 4, 6, 6), -100.0)
    logits[:, 1] = 100
    for given, wanted in ((logits, motions[:, 1]), (0 * logits, motions.mean(1))):
        found = compose_motion(given, source, driving, "half_pixel")
        assert torch.allclose(found, wanted, atol=1e-5)


# -- generators and discriminator ------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["pixel", "logit"])
@pytest.mark.parametrize("preset", ["ours-pt", "fomm"])
@torch.no_grad()
def test_prediction_is_content_and_texture_and_hides_what_is_occluded(
    preset: str, fusion: str
) -> None:
    model = lively_checkpoint(preset, (*SMALL, f"model.generator.fusion={fusion}")).model()
    feature = model.generator.encode(noise(2, 1, 128, 128))
    still = make_grid(32, 32, "half_pixel").expand(2, -1, -1, -1)
    shown, hidden = (
        model.generator.decode(feature, Motion(still, torch.full((2, 1, 32, 32), seen)))
        for seen in (1.0, 0.0)
    )
    image, content, texture = shown
    assert torch.allclose(image, content + texture, atol=1e-6)
    assert content.min() > 0 and content.max() < 1
    assert (texture.std() > 0) == (preset == "ours-pt")
    if fusion == "logit":
        assert image.min() > 0 and image.max() < 1
    assert torch.equal(hidden.image[0], hidden.image[1])
    assert not torch.equal(shown.image[0], shown.image[1])


def test_discriminator_has_unit_spectral_norm_and_judges_patches() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=2, max_features=16), 1)
    for _ in range(60):
        network(noise(1, 1, 64, 64))
    for conv in (*network.convs, network.final):
        norm = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
        assert norm.item() == pytest.approx(1, abs=0.02)
    x, first = noise(1, 1, 256, 256), network.eval().convs[0]
    score, features = network(x)
    y = F.avg_pool2d(F.leaky_relu(F.conv2d(x, first.weight, first.bias), 0.2), 2)
    assert torch.allclose(features[0], y, atol=1e-6)
    assert score.shape == (1, 1, 26, 26)
    assert [x.shape[-1] for x in features] == [126, 61, 29, 26]
