"""A frame composed by the runtime is the generator's own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from lively import speckle
from numpy.typing import NDArray

from sonomime.runtime.compose import Composer
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.media.pixels import psnr, to_image, to_planes
from sonomime.runtime.session import own_places
from sonomime.training.config import CorrectorConfig
from sonomime.training.models.geometry import sample_within
from sonomime.training.models.matching.generator import CorrectingGenerator, FrameLayers, denser

SIZE = 128
GRID = SIZE // 4


def slow(rng: np.random.Generator, channels: int, deviation: float) -> NDArray[np.float32]:
    """Slowly varying maps (1, channels, GRID, GRID) around 0."""
    rough = rng.normal(0, deviation, (4, 4, channels)).astype(np.float32)
    smooth = np.atleast_3d(cv2.resize(rough, (GRID, GRID), interpolation=cv2.INTER_CUBIC))
    return np.ascontiguousarray(smooth.reshape(GRID, GRID, channels).transpose(2, 0, 1)[None])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(SIZE, SIZE), (SIZE, 96), (72, SIZE)])
def test_at_the_model_s_size_it_is_the_generator_s_frame(
    width: int, height: int, channels: int
) -> None:
    rng = np.random.default_rng(0)
    soft = cv2.GaussianBlur(speckle(SIZE, channels), (0, 0), 1.0)
    picture = np.ascontiguousarray(soft[:height, :width])
    box = Letterbox.fit(width, height, SIZE)
    moves = [slow(rng, 2, 0.04).transpose(0, 2, 3, 1) for _ in range(2)]
    deformation = own_places(GRID, GRID) + moves[0]
    stiff = own_places(GRID, GRID) + np.float32(0.8) * moves[0] + np.float32(0.2) * moves[1]
    gain, offset, gate = 1 + slow(rng, 1, 0.2), slow(rng, 1, 0.05), 1 + slow(rng, 1, 0.2)

    network = CorrectingGenerator(CorrectorConfig(width=4, blocks=1), channels)
    # The runtime mirrors the picture where the model's square is black.
    bars = (box.y, SIZE - height - box.y), (box.x, SIZE - width - box.x), (0, 0)
    square = np.pad(picture, bars[: picture.ndim], mode="symmetric")
    image = torch.from_numpy(to_planes(square).astype(np.float32) / 255)
    with torch.no_grad():
        source = network.encode(image)
        low = sample_within(source.low, denser(torch.from_numpy(deformation), 2))
        layers = FrameLayers(*map(torch.from_numpy, (gain, offset, gate)))
        made = network.compose(low, source.texture, torch.from_numpy(stiff), layers).image()
    levels = np.rint(255 * made.clamp(0, 1).numpy()).astype(np.uint8)
    wanted = box.inside(to_image(levels))

    found = Composer(picture, box, (width, height)).compose(deformation, stiff, gain, offset, gate)
    assert found.shape == wanted.shape
    assert psnr(found, wanted) > 45
    assert psnr(picture, wanted) < 30, "what is compared has moved"
