"""Identity and known translations are exact at every size; points and blurs mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lively import noise
from torch import Tensor

from sonomime.training.coordinates import pixels_to_points, points_to_pixels
from sonomime.training.models.geometry import (
    AntiAlias,
    gaussian_heatmap,
    in_float32,
    make_grid,
    resize_by_matrices,
    resize_map,
    warp,
)


def shifted(image: Tensor, dx: int, dy: int) -> Tensor:
    """Each pixel from (x + dx, y + dy), zero where that is outside."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (abs(dx), abs(dx), abs(dy), abs(dy)))
    top, left = dy + abs(dy), dx + abs(dx)
    return padded[..., top : top + height, left : left + width]


@given(
    at=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    size=st.tuples(st.integers(2, 16384), st.integers(2, 16384)),
    geometry=st.sampled_from(("half_pixel", "fomm_aligned")),
)
def test_points_and_pixels_are_inverses(
    at: tuple[float, float], size: tuple[int, int], geometry: str
) -> None:
    pixels, sides = np.array([at]), np.array(size)
    points = pixels_to_points(pixels, sides, geometry)
    assert np.allclose(points_to_pixels(points, sides, geometry), pixels, rtol=1e-9, atol=1e-6)
    tensors = pixels_to_points(torch.from_numpy(pixels), torch.from_numpy(sides), geometry)
    assert np.array_equal(tensors.numpy(), points)


# -- warping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 256), (64, 128)], ids=str)
@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-8, 5), (40, 40)], ids=str)
def test_whole_pixel_translation_is_exact_to_the_border(
    size: tuple[int, int], shift: tuple[int, int]
) -> None:
    image, step = noise(2, 3, *size), torch.tensor(shift) * 2 / torch.tensor([size[1], size[0]])
    field = (make_grid(size[0] // 4, size[1] // 4, "half_pixel") + step).expand(2, -1, -1, -1)
    assert torch.equal(warp(image, field, "half_pixel"), shifted(image, *shift))
    # A float16 coordinate near 1 would be off by 0.06 pixels at 256.
    half = warp(image.half(), field, "half_pixel")
    assert half.dtype == torch.float16 and torch.equal(half, shifted(image.half(), *shift))


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (256, 256), (48, 80)], ids=str)
@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-8, 5)], ids=str)
def test_translations_in_fomms_geometry(size: tuple[int, int], shift: tuple[int, int]) -> None:
    image, sides = noise(2, 3, *size), torch.tensor([size[1], size[0]])
    field = (make_grid(*size, "fomm_aligned") + torch.tensor(shift) * 2 / (sides - 1))[None]
    found = warp(image, field.expand(2, -1, -1, -1), "fomm_aligned")
    assert (found - shifted(image, *shift)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("geometry", "corners"), [("fomm_aligned", True), ("fomm_unaligned", False)]
)
def test_fomms_geometries_sample_as_their_torch_did(geometry: str, corners: bool) -> None:
    image, field = noise(2, 3, 24, 40), 1.2 * noise(2, 24, 40, 2)
    wanted = F.grid_sample(image, field, align_corners=corners)
    assert (warp(image, field, geometry) - wanted).abs().max() < 2e-5


# -- jacobians, heatmaps, anti-aliasing -----------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_downsampling_keeps_a_blobs_centre_and_a_flat_image(factor: int) -> None:
    point, side = torch.tensor([[[0.13, -0.22]]]), 128 // factor
    blob = gaussian_heatmap(point, make_grid(128, 128, "half_pixel"), 0.006)
    down = AntiAlias(1, factor, "half_pixel")
    weight = down(blob) / down(blob).sum()
    centre = (weight[0, 0, ..., None] * make_grid(side, side, "half_pixel")).sum((0, 1))
    assert (centre - point).abs().max() * side / 2 < 0.02  # pixels of the small image
    inside = down(torch.full((1, 1, 128, 128), 0.7))[..., 3:-3, 3:-3]
    assert (inside - 0.7).abs().max() < 1e-5


def test_autocast_is_kept_away() -> None:
    image, matrix = noise(1, 1, 64, 64), noise(8, 8)
    down, product = AntiAlias(1, 4, "half_pixel"), in_float32(torch.matmul)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.matmul(matrix, matrix).dtype == torch.bfloat16
        small, exact = down(image), product(matrix, matrix)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(small, down(image)) and torch.equal(exact, matrix @ matrix)


@pytest.mark.parametrize("size", [(64, 64), (24, 32), (8, 40), (5, 3)], ids=str)
def test_resizing_by_matrices_is_resizing(size: tuple[int, int]) -> None:
    image = noise(2, 3, 8, 16)
    expected = resize_map(image, *size)
    torch.testing.assert_close(resize_by_matrices(image, *size), expected, rtol=1e-5, atol=1e-6)
