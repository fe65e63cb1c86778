"""Sizes as in METHOD; detector, dense motion, generators and discriminator do what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lively import SMALL, lively_checkpoint
from torch import Tensor, nn

from sonomime.training.config import (
    DiscriminatorConfig,
    KeypointConfig,
    MotionConfig,
    load_config,
)
from sonomime.training.models.discriminator import Discriminator
from sonomime.training.models.geometry import gaussian_heatmap, make_grid
from sonomime.training.models.keypoints.dense_motion import (
    DenseMotion,
    Motion,
    compose_motion,
    local_motions,
    sparse_motion,
)
from sonomime.training.models.keypoints.keypoint_detector import KeypointDetector, Keypoints
from sonomime.training.models.keypoints.model import AnimationModel


def lively(preset: str, *overrides: str) -> AnimationModel:
    model: AnimationModel = lively_checkpoint(preset, (*SMALL, *overrides)).model()
    return model


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def keypoints(batch: int, count: int, seed: int) -> Keypoints:
    random = torch.Generator().manual_seed(seed)
    value = torch.rand(batch, count, 2, generator=random) * 1.6 - 0.8
    return Keypoints(value, torch.eye(2) + 0.3 * torch.randn(batch, count, 2, 2, generator=random))


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("preset", "overrides", "detector", "generator"),
    [
        ("fomm", ["model.channels=3"], 14_215_368, 45_575_391),
        ("ours-ptg", [], 14_225_496, 46_797_436),
        ("ours-ptg", ["model.generator.bottleneck=split"], 14_225_496, 53_884_540),
    ],
)
def test_parameter_counts_of_method(
    preset: str, overrides: list[str], detector: int, generator: int
) -> None:
    with torch.device("meta"):
        model = AnimationModel(load_config(preset, overrides).model)
        assert parameters(Discriminator(DiscriminatorConfig(), 3)) == 2_758_849
    assert parameters(model.keypoint_detector) == detector
    assert parameters(model.dense_motion, model.generator) == generator


@pytest.mark.parametrize("preset", ["fomm", "ours-p", "ours-pt", "ours-ptg"])
def test_every_preset_makes_a_frame_and_gradients_reach_all_of_it(preset: str) -> None:
    model, image = lively(preset).requires_grad_(True), noise(2, 1, 128, 128)
    target = model.keypoint_detector(noise(2, 1, 128, 128, seed=1))
    prediction, motion = model.animate(model.encode(image), target)
    assert prediction.image.shape == image.shape and prediction.image.isfinite().all()
    assert motion.deformation.shape == (2, 32, 32, 2)
    (prediction.image.square().mean() + prediction.content.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


# -- keypoint detector -----------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["half_pixel", "fomm"])
@pytest.mark.parametrize("point", [(0.3, -0.1), (-0.62, 0.55)], ids=str)
def test_a_blob_in_the_heatmap_is_found_where_it_is(
    geometry: str, point: tuple[float, float]
) -> None:
    detector = KeypointDetector(KeypointConfig(1, 1, width=2, depth=1), 1, geometry)
    feature = detector.hourglass(detector.down(noise(1, 1, 256, 256)))
    side = 64 if geometry == "half_pixel" else 58
    assert detector.heatmap(feature).shape == (1, 2, side, side)
    grid = make_grid(side, side, geometry)
    logits = -(grid - torch.tensor(point)).square().sum(-1) * 50 * detector.temperature
    heatmap = detector.normalise(logits.expand(1, 2, side, side))
    field = torch.tensor([1.5, 0.2, -0.3, 0.5]).repeat(2)
    found = detector.read(heatmap, field.view(1, 8, 1, 1).expand(1, 8, side, side))
    assert (found.value - torch.tensor(point)).abs().max() < 1e-4
    expected = torch.tensor([[1.5, 0.2], [-0.3, 0.5]])
    assert torch.allclose(found.jacobian, expected.expand(1, 2, 2, 2), atol=1e-5)


def test_jacobians_are_read_where_the_heatmap_is_and_start_as_the_identity() -> None:
    detector = KeypointDetector(KeypointConfig(2, 0, width=2, depth=1), 1, "half_pixel")
    heatmap = torch.zeros(1, 2, 4, 4)
    heatmap[0, 0, 1, 2] = heatmap[0, 1, 3, 0] = 1
    maps = noise(1, 8, 4, 4)
    found = detector.read(heatmap, maps)
    assert torch.equal(found.jacobian[0, 0], maps[0, :4, 1, 2].view(2, 2))
    assert torch.equal(found.jacobian[0, 1], maps[0, 4:, 3, 0].view(2, 2))
    fresh = detector.eval()(noise(1, 1, 64, 64)).jacobian
    assert torch.allclose(fresh, torch.eye(2).expand(1, 2, 2, 2), atol=1e-6)


def test_a_blob_in_the_image_is_found_where_it_is() -> None:
    settings = KeypointConfig(1, 0, width=4, max_features=8, depth=1, head_kernel=3)
    detector = KeypointDetector(settings, 1, "half_pixel").eval()
    # The hourglass ends with its raw input: a head that reads just that makes brightness the logit.
    nn.init.zeros_(detector.heatmap.weight)
    with torch.no_grad():
        detector.heatmap.weight[:, -1, 1, 1] = 2.0
        at = torch.tensor([[[-0.71, 0.55]]])
        image = gaussian_heatmap(at, make_grid(256, 256, "half_pixel"), 0.01)
        found = detector(image).value
    assert (found - at).abs().max() * 128 < 0.1  # pixels at 256


def test_bf16_autocast_does_not_round_keypoints_and_motions() -> None:
    detector = KeypointDetector(KeypointConfig(2, 0, width=2, depth=1), 1, "half_pixel")
    heatmap, maps = detector.normalise(noise(1, 2, 64, 64)), noise(1, 8, 64, 64)
    pair, grid = (keypoints(1, 2, 1), keypoints(1, 2, 2)), make_grid(8, 8, "half_pixel")
    with torch.autocast("cpu", torch.bfloat16):
        found, motions = detector.read(heatmap, maps), local_motions(*pair, grid)
    exact = detector.read(heatmap, maps)
    assert torch.equal(found.value, exact.value) and torch.equal(found.jacobian, exact.jacobian)
    assert torch.equal(motions, local_motions(*pair, grid))


# -- dense motion ----------------------------------------------------------------------------------


def test_local_motions_are_their_formula() -> None:
    source, driving = keypoints(2, 3, 1), keypoints(2, 3, 2)
    grid = make_grid(5, 6, "half_pixel")
    found = local_motions(source, driving, grid).numpy()
    assert found.shape == (2, 4, 5, 6, 2)
    for b in range(2):
        assert np.array_equal(found[b, 0], grid.numpy())
        for k in range(3):
            affine = source.jacobian[b, k].numpy() @ np.linalg.inv(driving.jacobian[b, k].numpy())
            z = grid[4, 1].numpy()
            expected = source.value[b, k].numpy() + affine @ (z - driving.value[b, k].numpy())
            assert np.abs(found[b, k + 1, 4, 1] - expected).max() < 1e-5


def test_sparse_motion_holds_heatmaps_and_warped_sources() -> None:
    small, grid = noise(1, 1, 16, 16), make_grid(16, 16, "half_pixel")
    points = torch.tensor([[[0.0, 0.25], [-0.5, 0.125]]])
    still = torch.eye(2).expand(1, 2, 2, 2)
    source = Keypoints(points, still)
    driving = Keypoints(points + torch.tensor([0.25, -0.125]), still)  # 2 pixels right, 1 up
    slots = sparse_motion(small, source, driving, 0.01, "half_pixel").view(1, 3, 2, 16, 16)
    assert torch.equal(slots[:, 0, 0], torch.zeros(1, 16, 16))
    assert torch.equal(slots[:, 0, 1], small[:, 0])
    heat = [gaussian_heatmap(p.value, grid, 0.01) for p in (driving, source)]
    assert torch.allclose(slots[:, 1:, 0], heat[0] - heat[1], atol=1e-6)
    for k in (1, 2):  # read 2 pixels to the left and 1 below: zero where that is outside
        assert torch.allclose(slots[0, k, 1, :-1, 2:], small[0, 0, 1:, :-2], atol=1e-6)
        assert slots[0, k, 1, -1].abs().max() == 0 and slots[0, k, 1, :, :2].abs().max() == 0


def test_masks_weigh_the_motions() -> None:
    source, driving = keypoints(1, 2, 3), keypoints(1, 2, 4)
    motions = local_motions(source, driving, make_grid(8, 8, "half_pixel"))
    logits = torch.full((1, 3, 8, 8), -100.0)
    logits[:, 1] = 100
    for given, wanted in ((logits, motions[:, 1]), (0 * logits, motions.mean(1))):
        found = compose_motion(given, source, driving, "half_pixel")
        assert torch.allclose(found, wanted, atol=1e-6)


def test_no_motion_of_the_keypoints_is_no_deformation() -> None:
    settings = MotionConfig(width=4, max_features=8, depth=2, head_kernel=3)
    network, same = DenseMotion(settings, 3, 1, "half_pixel").eval(), keypoints(2, 3, 5)
    deformation = network(noise(2, 1, 16, 16), same, same).deformation
    still = make_grid(16, 16, "half_pixel").expand(2, -1, -1, -1)
    assert torch.allclose(deformation, still, atol=1e-5)


# -- generators and discriminator ------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["pixel", "logit"])
@pytest.mark.parametrize("preset", ["ours-pt", "fomm"])
@torch.no_grad()
def test_prediction_is_content_and_texture_and_hides_what_is_occluded(
    preset: str, fusion: str
) -> None:
    generator = lively(preset, f"model.generator.fusion={fusion}").generator
    feature = generator.encode(noise(2, 1, 128, 128))
    still = make_grid(32, 32, "half_pixel").expand(2, -1, -1, -1)
    shown, hidden = (
        generator.decode(feature, Motion(still, torch.full((2, 1, 32, 32), seen)))
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


def test_discriminator_is_its_formula_with_unit_spectral_norm() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=2, max_features=8, blocks=2), 1)
    for _ in range(60):
        network(noise(1, 1, 32, 32))
    for conv in (*network.convs, network.final):
        norm = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
        assert norm.item() == pytest.approx(1, abs=0.02)
    x, (first, second) = noise(1, 1, 32, 32), network.convs
    judged = network.eval()(x)
    y = F.avg_pool2d(F.leaky_relu(F.conv2d(x, first.weight, first.bias), 0.2), 2)
    assert torch.allclose(judged.features[0], y, atol=1e-6)
    y = F.leaky_relu(F.instance_norm(F.conv2d(y, second.weight, second.bias)), 0.2)
    assert torch.allclose(judged.features[1], y, atol=1e-5)
    whole = Discriminator(DiscriminatorConfig(width=2, max_features=16), 1)
    assert whole(noise(1, 1, 256, 256)).score.shape == (1, 1, 26, 26)
