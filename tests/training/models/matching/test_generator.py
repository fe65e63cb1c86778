"""Untrained, the generator is the warped and shaded source itself, as sharp as it was."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from lively import speckle
from torch import Tensor

from sonomime.training.config import CorrectorConfig
from sonomime.training.models.geometry import make_grid, mirrored, sample_within
from sonomime.training.models.matching.generator import CorrectingGenerator, FrameLayers, corrected

INSIDE = np.s_[..., 16:-16, 16:-16]


def picture(size: int, channels: int = 1) -> Tensor:
    """Soft speckle, (1, C, S, S): grains of some pixels, as a scanner's are."""
    soft = cv2.GaussianBlur(speckle(size, channels), (0, 0), 1.0) / np.float32(255)
    return torch.from_numpy(np.atleast_3d(soft).transpose(2, 0, 1)[None].astype(np.float32))


def frame(image: Tensor, shift: tuple[float, float] = (0, 0), shading: float = 0.0,
          ) -> tuple[Tensor, FrameLayers]:  # fmt: skip
    """A frame that reads the source some pixels away, (x, y)."""
    size = image.shape[-1]
    torch.manual_seed(0)
    generator = CorrectingGenerator(CorrectorConfig(width=4, blocks=1), image.shape[1])
    moved = torch.tensor(shift) * 2 / size
    where = make_grid(size // 4, size // 4, "half_pixel")[None] + moved
    with torch.no_grad():
        made = generator(
            generator.encode(image), where, where, moved.expand(1, 8, 8, 2),
            torch.ones(1, 1, 8, 8), torch.full((1, 1, 4, 4), shading),
        )  # fmt: skip
        return made.image(), made.layers


def texture(image: Tensor) -> np.ndarray:
    plane = image.numpy()[0, 0]
    return plane - cv2.GaussianBlur(plane, (0, 0), 1.5)


def sharpness(image: Tensor) -> float:
    return float(texture(image)[INSIDE].std())


@pytest.mark.parametrize(("size", "channels"), [(64, 1), (128, 3), (256, 1)])
def test_the_identity_is_the_source(size: int, channels: int) -> None:
    image = picture(size, channels)
    found, layers = frame(image)
    assert found.shape == image.shape
    assert (found - image).abs().max() < 1e-4
    for layer, neutral in zip(layers, (1, 0, 1), strict=True):
        assert layer.shape == (1, 1, size // 4, size // 4)
        assert (layer == neutral).all()


@pytest.mark.parametrize(("x", "y"), [(4, 0), (-2, 6), (3, -1), (0, 11)])
def test_whole_pixels(x: int, y: int) -> None:
    image = picture(256)
    found, _ = frame(image, (x, y))
    wanted = torch.roll(image, (-y, -x), (2, 3))
    # The low-pass has half the pixels, so odd ones fall between two of them.
    bound = 1e-4 if x % 2 == y % 2 == 0 else 0.02
    assert (found - wanted)[INSIDE].abs().max() < bound


@pytest.mark.parametrize(
    ("shift", "lost"), [((0.5, 0), 0.05), ((0, -3.25), 0.05), ((0.5, 7.5), 0.08)]
)
def test_parts_of_pixels_keep_it_sharp(shift: tuple[float, float], lost: float) -> None:
    image = picture(256)
    found, _ = frame(image, shift)
    assert sharpness(found) == pytest.approx(sharpness(image), rel=lost)
    where = make_grid(256, 256, "half_pixel")[None] + torch.tensor(shift) * 2 / 256
    assert sharpness(found) > 1.02 * sharpness(sample_within(image, where))


def test_shading_is_a_factor_of_the_odds_and_speckle_takes_half_of_it() -> None:
    black, grey, white = (
        frame(torch.full((1, 1, 64, 64), level), shading=0.4) for level in (0.0, 0.5, 1.0)
    )
    for (found, _), level in ((black, 0.0), (grey, 1 / (1 + np.exp(-0.4))), (white, 1.0)):
        torch.testing.assert_close(found, torch.full_like(found, level))
    gain, _, gate = grey[1]
    torch.testing.assert_close(gate, gain.sqrt())


def test_texture_is_made_stronger_by_little() -> None:
    strong = torch.full((1, 3, 4, 4), 9.0)
    low = torch.full((1, 1, 8, 8), 0.5)
    layers = corrected(strong, torch.zeros(1, 1, 4, 4), low)
    wanted = layers.gain.sqrt() * np.exp(0.1)
    torch.testing.assert_close(layers.gate, wanted.float())


def test_beyond_the_border_the_low_pass_goes_on_and_speckle_is_mirrored() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    away = make_grid(8, 8, "half_pixel")[None] - torch.tensor([4 * 2 / 8, 0])
    assert sample_within(ramp, away)[0, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3]
    back = sample_within(ramp, mirrored(away))[0, 0, 0]
    torch.testing.assert_close(back, torch.tensor([3.0, 2, 1, 0, 0, 1, 2, 3]))
    image = picture(128)
    found, _ = frame(image, (-40, 0))
    unseen, back = (texture(x)[:, 4:36] for x in (found, image.flip(3).roll(40, 3)))
    assert np.corrcoef(unseen.ravel(), back.ravel())[0, 1] > 0.7
