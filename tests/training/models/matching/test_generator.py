"""Untrained, the generator is the warped and shaded source itself, as sharp as it was; and the
runtime composes the same frame of its layers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from lively import speckle
from numpy.typing import NDArray
from torch import Tensor

from sonomime.runtime.compose import Composer
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.media.pixels import psnr, to_image, to_planes
from sonomime.training.config import CorrectorConfig
from sonomime.training.models.geometry import make_grid, mirrored, sample_within
from sonomime.training.models.matching.model import (
    CorrectingGenerator,
    FrameLayers,
    Motion,
    corrected,
)
from sonomime.training.models.matching.transfer import Passed

INSIDE = np.s_[..., 16:-16, 16:-16]


def places(side: int) -> Tensor:
    return make_grid(side, side, "half_pixel")[None]


def picture(size: int, channels: int = 1) -> NDArray[np.uint8]:
    """Soft speckle, (S, S) or (S, S, 3): grains of some pixels, as a scanner's are."""
    return np.asarray(cv2.GaussianBlur(speckle(size, channels), (0, 0), 1.0))


def tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(to_planes(image)) / 255


def network(channels: int) -> CorrectingGenerator:
    torch.manual_seed(0)
    return CorrectingGenerator(CorrectorConfig(width=4, blocks=1), channels)


@torch.no_grad()
def frame(
    image: Tensor, shift: tuple[float, float] = (0, 0), shading: float = 0.0
) -> tuple[Tensor, FrameLayers]:
    """A frame that reads the source some pixels away, (x, y)."""
    size = image.shape[-1]
    generator, moved = network(image.shape[1]), torch.tensor(shift) * 2 / size
    where, light = places(size // 4) + moved, torch.full((1, 1, 4, 4), shading)
    passed = Passed(moved.expand(1, 8, 8, 2), torch.ones(1, 1, 8, 8), light)
    source = generator.encode(image)
    made = generator(source.feature, where, passed, generator.move(source, Motion(where, where)))
    return made.image(), made.layers


def texture(image: Tensor) -> NDArray[np.float32]:
    plane = image.numpy()[0, 0]
    return plane - cv2.GaussianBlur(plane, (0, 0), 1.5)


def sharpness(image: Tensor) -> float:
    return float(texture(image)[INSIDE].std())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (4, 0), (-2, 6), (3, -1), (0, 11)])
def test_whole_pixels(x: int, y: int, channels: int) -> None:
    image = tensor(picture(256, channels))
    found, layers = frame(image, (x, y))
    wanted = torch.roll(image, (-y, -x), (2, 3))
    # The low-pass has half the pixels, so odd ones fall between two of them.
    bound = 1e-4 if x % 2 == y % 2 == 0 else 0.02
    where = INSIDE if x or y else np.s_[...]
    assert (found - wanted)[where].abs().max() < bound
    for layer, neutral in zip(layers, (1, 0, 1), strict=True):
        assert torch.equal(layer, torch.full((1, 1, 64, 64), float(neutral)))


@pytest.mark.parametrize(
    ("shift", "lost"), [((0.5, 0), 0.05), ((0, -3.25), 0.05), ((0.5, 7.5), 0.08)]
)
def test_parts_of_pixels_keep_it_sharp(shift: tuple[float, float], lost: float) -> None:
    image = tensor(picture(256))
    found, _ = frame(image, shift)
    assert sharpness(found) == pytest.approx(sharpness(image), rel=lost)
    bilinear = sample_within(image, places(256) + torch.tensor(shift) * 2 / 256)
    assert sharpness(found) > 1.02 * sharpness(bilinear)


def test_shading_is_a_factor_of_the_odds_and_speckle_takes_half_of_it() -> None:
    for level, wanted in ((0.0, 0.0), (0.5, 1 / (1 + np.exp(-0.4))), (1.0, 1.0)):
        found, (gain, _, gate) = frame(torch.full((1, 1, 64, 64), level), shading=0.4)
        torch.testing.assert_close(found, torch.full_like(found, wanted))
        torch.testing.assert_close(gate, gain.sqrt())
    strong, light = torch.full((1, 3, 4, 4), 9.0), torch.zeros(1, 1, 4, 4)
    layers = corrected(strong, light, torch.full((1, 1, 8, 8), 0.5))
    wanted = layers.gain.sqrt() * np.exp(0.1)  # texture is made stronger by little
    torch.testing.assert_close(layers.gate, wanted.float())


def test_beyond_the_border_the_low_pass_goes_on_and_speckle_is_mirrored() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    away = places(8) - torch.tensor([4 * 2 / 8, 0])
    assert sample_within(ramp, away)[0, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3]
    back = sample_within(ramp, mirrored(away))[0, 0, 0]
    torch.testing.assert_close(back, torch.tensor([3.0, 2, 1, 0, 0, 1, 2, 3]))
    image = tensor(picture(128))
    found, _ = frame(image, (-40, 0))
    unseen, back = (texture(x)[:, 4:36] for x in (found, image.flip(3).roll(40, 3)))
    assert np.corrcoef(unseen.ravel(), back.ravel())[0, 1] > 0.7


@pytest.mark.parametrize(
    ("width", "height", "channels"), [(128, 128, 3), (128, 96, 1), (72, 128, 3)]
)
@torch.no_grad()
def test_at_the_model_s_size_the_runtime_composes_the_generator_s_frame(
    width: int, height: int, channels: int
) -> None:
    torch.manual_seed(1)

    def slow(many: int, deviation: float) -> Tensor:
        """Slowly varying maps around 0."""
        rough = deviation * torch.randn(1, many, 4, 4)
        return torch.nn.functional.interpolate(rough, size=(32, 32), mode="bicubic")

    image, box = picture(128, channels)[:height, :width], Letterbox.fit(width, height, 128)
    moves = [slow(2, 0.04).permute(0, 2, 3, 1) for _ in range(2)]
    deformation, stiff = places(32) + moves[0], places(32) + 0.8 * moves[0] + 0.2 * moves[1]
    layers = FrameLayers(1 + slow(1, 0.2), slow(1, 0.05), 1 + slow(1, 0.2))

    # The runtime mirrors the picture where the model's square is black.
    bars = (box.y, 128 - height - box.y), (box.x, 128 - width - box.x), (0, 0)
    square = np.pad(image, bars[: image.ndim], mode="symmetric")
    generator = network(channels)
    source = generator.encode(tensor(square))
    moved = generator.move(source, Motion(deformation, stiff))
    made = generator.compose(moved, layers).image()
    levels = np.rint(255 * made.clamp(0, 1).numpy()).astype(np.uint8)
    wanted = box.inside(to_image(levels))

    composer = Composer(np.ascontiguousarray(image), box, (width, height))
    found = composer.compose(*(x.numpy() for x in (deformation, stiff, *layers)))
    assert found.shape == wanted.shape
    assert psnr(found, wanted) > 45
    assert psnr(image, wanted) < 30, "what is compared has moved"
