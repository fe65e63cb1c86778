"""Sizes as in METHOD.md; keypoints, motions and generators do what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonomime.training.config import (
    Config,
    DiscriminatorConfig,
    KeypointConfig,
    ModelConfig,
    MotionConfig,
    load_config,
)
from sonomime.training.models.blocks import Down, Hourglass, Residual, Up
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

TINY = [
    "model.image_size=64",
    "model.keypoints.width=4",
    "model.keypoints.max_features=8",
    "model.keypoints.depth=2",
    "model.motion.width=4",
    "model.motion.max_features=8",
    "model.motion.depth=2",
    "model.generator.width=4",
    "model.generator.blocks=2",
]


def config(preset: str, *overrides: str) -> ModelConfig:
    return load_config(preset, overrides).model


def tiny(preset: str, *overrides: str, seed: int = 0) -> AnimationModel:
    torch.manual_seed(seed)
    return AnimationModel(config(preset, *TINY, *overrides)).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def frames(value: Tensor, jacobian: Tensor | None = None) -> Keypoints:
    """Keypoints at ``value``, with identity jacobians unless given."""
    if jacobian is None:
        jacobian = torch.eye(2).expand(*value.shape[:2], 2, 2)
    return Keypoints(value, jacobian)


def random_frames(batch: int, count: int, seed: int) -> Keypoints:
    random = torch.Generator().manual_seed(seed)
    value = torch.rand(batch, count, 2, generator=random) * 1.6 - 0.8
    jacobian = torch.eye(2) + 0.3 * torch.randn(batch, count, 2, 2, generator=random)
    return Keypoints(value, jacobian)


# -- sizes -----------------------------------------------------------------------------------------


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("preset", "overrides", "detector", "generator"),
    [
        ("fomm", ["model.channels=3"], 14_215_368, 45_575_391),
        ("ours-ptg", [], 14_225_496, 46_797_436),
        ("ours-ptg", ["model.generator.bottleneck=split"], 14_225_496, 53_884_540),
        ("ours-pt", ["model.channels=3", "model.keypoints.supervised=0"], None, 46_838_754),
    ],
)
def test_parameter_counts_of_method(
    preset: str, overrides: list[str], detector: int | None, generator: int
) -> None:
    with torch.device("meta"):
        model = AnimationModel(config(preset, *overrides))
    assert parameters(model.dense_motion) + parameters(model.generator) == generator
    if detector is not None:
        assert parameters(model.keypoint_detector) == detector
    if preset == "fomm":
        assert parameters(model.dense_motion) == 37_730_268


def test_discriminator_of_method() -> None:
    with torch.device("meta"):
        assert parameters(Discriminator(DiscriminatorConfig(), 3)) == 2_758_849


@pytest.mark.parametrize("preset", ["fomm", "ours-p", "ours-pt", "ours-ptg"])
def test_every_preset_makes_a_frame(preset: str) -> None:
    model = tiny(preset)
    image = noise(2, 1, 64, 64)
    with torch.no_grad():
        source = model.encode(image)
        target = model.keypoint_detector(noise(2, 1, 64, 64, seed=1))
        prediction, motion = model.animate(source, target)
    count = model.config.keypoints.count
    assert target.value.shape == (2, count, 2) and target.jacobian.shape == (2, count, 2, 2)
    assert source.small.shape == (2, 1, 16, 16)
    assert motion.deformation.shape == (2, 16, 16, 2)
    assert motion.occlusion_map.shape == (2, 1, 16, 16)
    assert motion.occlusion_map.min() >= 0 and motion.occlusion_map.max() <= 1
    for part in prediction:
        assert part.shape == image.shape and part.isfinite().all()
    assert source.feature.shape == (2, 16, 16, 16)


def test_encoding_takes_keypoints_that_were_found_before() -> None:
    model, image = tiny("ours-p"), noise(1, 1, 64, 64)
    known = random_frames(1, model.config.keypoints.count, 0)
    assert model.encode(image, known).keypoints is known


# -- blocks ----------------------------------------------------------------------------------------


def test_blocks_are_their_formulas() -> None:
    torch.manual_seed(0)
    x = noise(2, 3, 8, 8)
    down, up, res = Down(3, 5).eval(), Up(3, 5).eval(), Residual(3).eval()
    inner = F.relu(down.norm(F.conv2d(x, down.conv.weight, down.conv.bias, padding=1)))
    assert torch.allclose(down(x), inner.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5)))
    twice = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    inner = F.relu(up.norm(F.conv2d(twice, up.conv.weight, up.conv.bias, padding=1)))
    assert torch.allclose(up(x), inner)
    y = F.relu(res.norm1(x))
    y = F.relu(res.norm2(F.conv2d(y, res.conv1.weight, res.conv1.bias, padding=1)))
    y = F.conv2d(y, res.conv2.weight, res.conv2.bias, padding=1)
    assert torch.allclose(res(x), x + y, atol=1e-6)


def test_hourglass_gives_back_its_input_last() -> None:
    x = noise(1, 7, 32, 32)
    net = Hourglass(7, 4, depth=3, max_features=8).eval()
    y = net(x)
    assert y.shape == (1, 4 + 7, 32, 32) == (1, net.outputs, 32, 32)
    assert torch.equal(y[:, -7:], x)
    assert [block.conv.out_channels for block in net.downs] == [8, 8, 8]
    assert [block.conv.out_channels for block in net.ups] == [8, 8, 4]


# -- keypoint detector -----------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["half_pixel", "fomm"])
@pytest.mark.parametrize("point", [(0.3, -0.1), (-0.62, 0.55), (0.0, 0.0)], ids=str)
def test_a_blob_in_the_heatmap_is_found_where_it_is(
    geometry: str, point: tuple[float, float]
) -> None:
    detector = KeypointDetector(KeypointConfig(1, 1, width=2, depth=1), 1, geometry)
    side = 64 if geometry == "half_pixel" else 58
    grid = make_grid(side, side, geometry)
    # exp(-d^2 / 0.02) once divided by the temperature
    logits = -(grid - torch.tensor(point)).square().sum(-1) * 50 * detector.temperature
    heatmap = detector.normalise(logits.expand(1, 2, side, side))
    assert torch.allclose(heatmap.sum((2, 3)), torch.ones(1, 2))
    field = torch.tensor([1.5, 0.2, -0.3, 0.5]).repeat(2)
    found = detector.read(heatmap, field.view(1, 8, 1, 1).expand(1, 8, side, side))
    assert (found.value - torch.tensor(point)).abs().max() < 1e-4
    expected = torch.tensor([[1.5, 0.2], [-0.3, 0.5]])
    assert torch.allclose(found.jacobian, expected.expand(1, 2, 2, 2), atol=1e-5)


def test_jacobians_are_read_where_the_heatmap_is() -> None:
    detector = KeypointDetector(KeypointConfig(2, 0, width=2, depth=1), 1, "half_pixel")
    heatmap = torch.zeros(1, 2, 4, 4)
    heatmap[0, 0, 1, 2] = heatmap[0, 1, 3, 0] = 1
    maps = noise(1, 8, 4, 4)
    found = detector.read(heatmap, maps)
    assert torch.equal(found.jacobian[0, 0], maps[0, :4, 1, 2].view(2, 2))
    assert torch.equal(found.jacobian[0, 1], maps[0, 4:, 3, 0].view(2, 2))


def test_detector_starts_with_identity_jacobians() -> None:
    settings = KeypointConfig(3, 1, width=4, max_features=8, depth=2)
    found = KeypointDetector(settings, 1, "half_pixel").eval()(noise(2, 1, 64, 64))
    assert torch.allclose(found.jacobian, torch.eye(2).expand(2, 4, 2, 2), atol=1e-6)
    assert found.value.abs().max() < 1


def test_heatmaps_are_64_or_in_fomm_58_wide() -> None:
    for geometry, side in (("half_pixel", 64), ("fomm", 58)):
        detector = KeypointDetector(KeypointConfig(1, 0, width=2, depth=1), 1, geometry)
        feature = detector.hourglass(detector.down(noise(1, 1, 256, 256)))
        assert detector.heatmap(feature).shape == (1, 1, side, side)


@pytest.mark.parametrize("point", [(0.4, -0.3), (-0.71, 0.55)], ids=str)
def test_a_blob_in_the_image_is_found_where_it_is(point: tuple[float, float]) -> None:
    settings = KeypointConfig(1, 0, width=4, max_features=8, depth=1, head_kernel=3)
    detector = KeypointDetector(settings, 1, "half_pixel").eval()
    # The hourglass ends with its raw input: a head that reads just that makes brightness the logit.
    nn.init.zeros_(detector.heatmap.weight)
    with torch.no_grad():
        detector.heatmap.weight[:, -1, 1, 1] = 2.0
        at = torch.tensor([[point]])
        image = gaussian_heatmap(at, make_grid(256, 256, "half_pixel"), 0.01)
        found = detector(image).value
    assert (found - at).abs().max() * 128 < 0.1  # pixels at 256


def test_bf16_autocast_does_not_round_keypoints_and_motions() -> None:
    detector = KeypointDetector(KeypointConfig(2, 0, width=2, depth=1), 1, "half_pixel")
    heatmap, maps = detector.normalise(noise(1, 2, 64, 64)), noise(1, 8, 64, 64)
    source, driving = random_frames(1, 2, 1), random_frames(1, 2, 2)
    grid = make_grid(8, 8, "half_pixel")
    with torch.autocast("cpu", torch.bfloat16):
        found = detector.read(heatmap, maps)
        motions = local_motions(source, driving, grid)
    exact = detector.read(heatmap, maps)
    assert torch.equal(found.value, exact.value) and torch.equal(found.jacobian, exact.jacobian)
    assert torch.equal(motions, local_motions(source, driving, grid))


# -- dense motion ----------------------------------------------------------------------------------


def test_local_motions_are_their_formula() -> None:
    source, driving = random_frames(2, 3, 1), random_frames(2, 3, 2)
    grid = make_grid(5, 6, "half_pixel")
    found = local_motions(source, driving, grid).numpy()
    assert found.shape == (2, 4, 5, 6, 2)
    for b in range(2):
        assert np.array_equal(found[b, 0], grid.numpy())
        for k in range(3):
            affine = source.jacobian[b, k].numpy() @ np.linalg.inv(driving.jacobian[b, k].numpy())
            for y, x in ((0, 0), (2, 5), (4, 1)):
                z = grid[y, x].numpy()
                expected = source.value[b, k].numpy() + affine @ (z - driving.value[b, k].numpy())
                assert np.abs(found[b, k + 1, y, x] - expected).max() < 1e-5


def test_keypoints_that_moved_give_that_translation() -> None:
    source = frames(torch.tensor([[[0.0, 0.25], [-0.5, 0.125]]]))
    step = torch.tensor([0.25, -0.125])
    grid = make_grid(16, 16, "half_pixel")
    motions = local_motions(source, frames(source.value + step), grid)
    assert torch.equal(motions[:, 0], grid[None])
    assert torch.allclose(motions[:, 1:], (grid - step).expand(1, 2, 16, 16, 2), atol=1e-6)


def test_sparse_motion_holds_heatmaps_and_warped_sources() -> None:
    small = noise(1, 1, 16, 16)
    source = frames(torch.tensor([[[0.0, 0.25], [-0.5, 0.125]]]))
    driving = frames(source.value + torch.tensor([0.25, -0.125]))  # 2 pixels right, 1 up
    slots = sparse_motion(small, source, driving, 0.01, "half_pixel").view(1, 3, 2, 16, 16)
    assert torch.equal(slots[:, 0, 0], torch.zeros(1, 16, 16))
    assert torch.equal(slots[:, 0, 1], small[:, 0])
    grid = make_grid(16, 16, "half_pixel")
    for k in (1, 2):
        heat = [
            gaussian_heatmap(p.value[:, k - 1 : k], grid, 0.01)[0, 0] for p in (driving, source)
        ]
        assert torch.allclose(slots[0, k, 0], heat[0] - heat[1], atol=1e-6)
        # Read 2 pixels to the left and 1 below: zero where that is outside.
        assert torch.allclose(slots[0, k, 1, :-1, 2:], small[0, 0, 1:, :-2], atol=1e-6)
        assert slots[0, k, 1, -1].abs().max() == 0 and slots[0, k, 1, :, :2].abs().max() == 0


def test_masks_weigh_the_motions() -> None:
    source, driving = random_frames(1, 2, 3), random_frames(1, 2, 4)
    grid = make_grid(8, 8, "half_pixel")
    motions = local_motions(source, driving, grid)
    for k in range(3):
        logits = torch.full((1, 3, 8, 8), -100.0)
        logits[:, k] = 100
        assert torch.allclose(
            compose_motion(logits, source, driving, "half_pixel"), motions[:, k], atol=1e-6
        )
    even = compose_motion(torch.zeros(1, 3, 8, 8), source, driving, "half_pixel")
    assert torch.allclose(even, motions.mean(1), atol=1e-6)


def test_no_motion_of_the_keypoints_is_no_deformation() -> None:
    torch.manual_seed(0)
    settings = MotionConfig(width=4, max_features=8, depth=2, head_kernel=3)
    network = DenseMotion(settings, 3, 1, "half_pixel").eval()
    same = random_frames(2, 3, 5)
    motion = network(noise(2, 1, 16, 16), same, same)
    assert torch.allclose(
        motion.deformation, make_grid(16, 16, "half_pixel").expand(2, -1, -1, -1), atol=1e-5
    )


# -- generators ------------------------------------------------------------------------------------


def still(size: int, occlusion: float = 1.0) -> Motion:
    grid = make_grid(size, size, "half_pixel")[None]
    return Motion(grid, torch.full((1, 1, size, size), occlusion))


@pytest.mark.parametrize("fusion", ["pixel", "logit"])
@pytest.mark.parametrize("bottleneck", ["shared", "split"])
@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_prediction_is_content_and_texture(fusion: str, bottleneck: str, upsample: str) -> None:
    model = tiny(
        "ours-pt",
        f"model.generator.fusion={fusion}",
        f"model.generator.bottleneck={bottleneck}",
        f"model.generator.upsample={upsample}",
    )
    with torch.no_grad():
        feature = model.generator.encode(noise(1, 1, 64, 64))
        image, content, texture = model.generator.decode(feature, still(16))
    assert torch.allclose(image, content + texture, atol=1e-6)
    assert content.min() > 0 and content.max() < 1 and texture.std() > 0
    if fusion == "logit":
        assert image.min() > 0 and image.max() < 1


def test_single_decoder_is_content_alone() -> None:
    model = tiny("fomm")
    with torch.no_grad():
        made = model.generator.decode(model.generator.encode(noise(1, 1, 64, 64)), still(16))
    assert torch.equal(made.image, made.content) and made.texture.abs().max() == 0
    assert made.image.min() > 0 and made.image.max() < 1


@pytest.mark.parametrize("preset", ["fomm", "ours-pt"])
def test_what_is_occluded_does_not_reach_the_frame(preset: str) -> None:
    generator = tiny(preset).generator
    with torch.no_grad():
        one, two = (
            generator.decode(generator.encode(noise(1, 1, 64, 64, seed=s)), still(16, 0.0)).image
            for s in (1, 2)
        )
        shown = generator.decode(generator.encode(noise(1, 1, 64, 64, seed=1)), still(16)).image
    assert torch.equal(one, two) and not torch.equal(one, shown)


def test_both_decoders_see_the_feature_at_every_up_block() -> None:
    generator = tiny("ours-pt").generator
    deep = 4 * 2**2
    for decoder in (generator.content, generator.texture):
        assert [up.conv.in_channels for up in decoder.ups] == [deep + deep, deep // 2 + deep]


# -- discriminator ---------------------------------------------------------------------------------


def test_discriminator_scores_26_by_26_patches() -> None:
    network = Discriminator(DiscriminatorConfig(width=2, max_features=16), 1)
    judged = network(noise(2, 1, 256, 256))
    assert judged.score.shape == (2, 1, 26, 26)
    sides = [(126, 2), (61, 4), (29, 8), (26, 16)]
    assert [tuple(f.shape) for f in judged.features] == [(2, w, s, s) for s, w in sides]


def test_discriminator_blocks_are_their_formula() -> None:
    network = Discriminator(DiscriminatorConfig(width=2, max_features=8, blocks=2), 1).eval()
    x = noise(1, 1, 32, 32)
    judged = network(x)
    first, second = network.convs
    y = F.avg_pool2d(F.leaky_relu(F.conv2d(x, first.weight, first.bias), 0.2), 2)
    assert torch.allclose(judged.features[0], y, atol=1e-6)
    y = F.instance_norm(F.conv2d(y, second.weight, second.bias))
    assert torch.allclose(judged.features[1], F.leaky_relu(y, 0.2), atol=1e-5)
    assert len(network.norms) == 1 and network.norms[0].weight is not None


def test_discriminator_has_unit_spectral_norm() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=4), 1)
    for _ in range(60):
        network(noise(1, 1, 64, 64))
    with torch.no_grad():
        for conv in (*network.convs, network.final):
            assert abs(float(torch.linalg.matrix_norm(conv.weight.flatten(1), 2)) - 1) < 0.02


def test_configuration_is_kept_with_the_model() -> None:
    model = config("ours-p", *TINY)
    assert AnimationModel(model).config is model and Config(model=model).model is model
