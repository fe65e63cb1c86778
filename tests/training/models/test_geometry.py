"""Identity and known translations are exact at every size; points and blurs mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sonomime.training.coordinates import pixels_to_points, points_to_pixels
from sonomime.training.models.geometry import (
    AntiAlias,
    gaussian_heatmap,
    in_float32,
    inverse_2x2,
    make_grid,
    resize_deformation,
    resize_map,
    sample,
    warp,
)

GEOMETRIES = ("half_pixel", "fomm")
SIZES = [64, 128, 256]
Shift = tuple[int, int]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def shifted(image: Tensor, dx: int, dy: int) -> Tensor:
    """Each pixel from (x + dx, y + dy), zero where that is outside."""
    height, width = image.shape[-2:]
    result = torch.zeros_like(image)
    for y in range(height):
        if 0 <= y + dy < height:
            left, right = max(0, -dx), min(width, width - dx)
            result[..., y, left:right] = image[..., y + dy, left + dx : right + dx]
    return result


# -- points and pixels ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_half_pixel_points_are_edges_at_minus_and_plus_one(size: int) -> None:
    pixels = np.array([-0.5, 0.0, size - 0.5])
    expected = [-1.0, 1 / size - 1, 1.0]
    assert np.allclose(pixels_to_points(pixels, size, "half_pixel"), expected, atol=1e-12)


def test_fomm_points_are_outermost_centres() -> None:
    assert np.allclose(pixels_to_points(np.array([0.0, 57.0]), 58, "fomm"), [-1, 1])
    grid = make_grid(3, 58, "fomm")
    assert torch.allclose(grid[0, :, 0], torch.linspace(-1, 1, 58), atol=1e-6)
    assert torch.allclose(grid[:, 0, 1], torch.linspace(-1, 1, 3))


@given(
    x=st.floats(-1e4, 1e4),
    y=st.floats(-1e4, 1e4),
    width=st.integers(2, 16384),
    height=st.integers(2, 16384),
    geometry=st.sampled_from(GEOMETRIES),
)
def test_points_and_pixels_are_inverses(
    x: float, y: float, width: int, height: int, geometry: str
) -> None:
    pixels, size = np.array([[x, y]]), np.array([width, height])
    back = points_to_pixels(pixels_to_points(pixels, size, geometry), size, geometry)
    assert np.allclose(back, pixels, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_grid_is_the_points_of_pixels_in_xy_order(geometry: str) -> None:
    grid = make_grid(6, 10, geometry)
    assert grid.shape == (6, 10, 2) and grid.dtype == torch.float32
    pixel = pixels_to_points(np.array([7.0, 2.0]), np.array([10, 6]), geometry)
    assert np.allclose(grid[2, 7].numpy(), pixel, atol=1e-6)


def test_arrays_and_tensors_agree() -> None:
    pixels = np.arange(8.0).reshape(4, 2)
    ours = pixels_to_points(torch.from_numpy(pixels), torch.tensor([64, 48]))
    assert np.array_equal(ours.numpy(), pixels_to_points(pixels, np.array([64, 48])))


# -- warping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("field", [64, None], ids=["field at 64", "field at full size"])
def test_identity_is_exact(size: int, field: int | None) -> None:
    image = noise(1, 3, size, size)
    side = field or size
    assert torch.equal(warp(image, make_grid(side, side, "half_pixel")[None], "half_pixel"), image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [(3, -2), (-8, 5), (1, 0), (0, -1), (40, 40)], ids=str)
def test_whole_pixel_translation_is_exact_to_the_border(size: int, shift: Shift) -> None:
    image = noise(2, 1, size, size)
    step = torch.tensor(shift) * 2 / size
    field = (make_grid(64, 64, "half_pixel") + step).expand(2, -1, -1, -1)
    assert torch.equal(warp(image, field, "half_pixel"), shifted(image, *shift))


@pytest.mark.parametrize("size", SIZES)
def test_half_a_pixel_is_the_mean_of_two(size: int) -> None:
    image = noise(1, 1, size, size)
    field = make_grid(64, 64, "half_pixel")[None] + torch.tensor([1 / size, 0.0])
    expected = (image + shifted(image, 1, 0)) / 2
    assert (warp(image, field, "half_pixel") - expected).abs().max() < 1e-6


def test_sides_may_differ() -> None:
    image = noise(1, 2, 64, 128)
    field = make_grid(16, 32, "half_pixel")[None] + torch.tensor([2 * 4 / 128, 2 * -2 / 64])
    assert torch.equal(warp(image, field, "half_pixel"), shifted(image, 4, -2))


def test_deformation_is_where_to_read() -> None:
    # x grows to the right, y downwards; a field of one point copies that place everywhere.
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 1, 6] = 1
    point = pixels_to_points(torch.tensor([6.0, 1.0]), 8)
    assert torch.equal(warp(image, point.expand(1, 8, 8, 2), "half_pixel"), torch.ones(1, 1, 8, 8))


def test_fomm_resizes_the_coordinates_themselves() -> None:
    field = make_grid(16, 16, "fomm")[None] + 0.1 * noise(1, 16, 16, 2)
    expected = F.interpolate(field.permute(0, 3, 1, 2), size=(32, 32), mode="bilinear")
    ours = resize_deformation(field, 32, 32, "fomm")
    assert torch.equal(ours, expected.permute(0, 2, 3, 1))
    image = noise(1, 1, 32, 32)
    assert torch.equal(warp(image, field, "fomm"), sample(image, ours))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_resizing_to_the_same_size_changes_nothing(geometry: str) -> None:
    field, image = noise(1, 16, 16, 2), noise(1, 3, 16, 16)
    assert resize_deformation(field, 16, 16, geometry) is field
    assert resize_map(image, 16, 16) is image


def test_coordinates_stay_float32_beside_half_features() -> None:
    # A float16 coordinate near 1 is off by 0.06 pixels at 256.
    image = noise(1, 1, 256, 256)
    field = make_grid(64, 64, "half_pixel")[None] + 2 * 3 / 256
    warped = warp(image.half(), field, "half_pixel")
    assert warped.dtype == torch.float16
    assert torch.equal(warped, shifted(image.half(), 3, 3))


# -- jacobians and heatmaps -----------------------------------------------------------------------


def test_inverse_is_the_inverse() -> None:
    matrix = torch.randn(
        5, 7, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    assert torch.allclose(inverse_2x2(matrix), torch.linalg.inv(matrix))


@pytest.mark.parametrize(("entry", "sign"), [(1e-5, 1), (-1e-5, -1), (0.0, 1)])
def test_small_determinants_are_held_with_their_sign(entry: float, sign: int) -> None:
    matrix = torch.tensor([[1.0, 2.0], [0.5, 1.0 + entry]], requires_grad=True)
    inverse = inverse_2x2(matrix)
    expected = torch.tensor([[1 + entry, -2.0], [-0.5, 1.0]]) / (sign * 1e-3)
    assert torch.allclose(inverse, expected)
    inverse.sum().backward()
    assert matrix.grad is not None and matrix.grad.isfinite().all()


def test_heatmap_is_a_gaussian_of_peak_one() -> None:
    grid = make_grid(32, 48, "half_pixel")
    points = torch.tensor([[[0.25, -0.5], [0.0, 0.9]]])
    heat = gaussian_heatmap(points, grid, 0.03).numpy()
    x, y = np.meshgrid((2 * np.arange(48) + 1) / 48 - 1, (2 * np.arange(32) + 1) / 32 - 1)
    for k, (px, py) in enumerate(points[0].tolist()):
        expected = np.exp(-((x - px) ** 2 + (y - py) ** 2) / 0.06)
        assert np.abs(heat[0, k] - expected).max() < 1e-6
    assert gaussian_heatmap(grid[3, 5].view(1, 1, 2), grid, 0.03)[0, 0, 3, 5] == 1


# -- anti-aliasing --------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("size", SIZES)
def test_downsampling_keeps_a_blobs_centre(size: int, factor: int) -> None:
    point = torch.tensor([[[0.13, -0.22]]])
    blob = gaussian_heatmap(point, make_grid(size, size, "half_pixel"), 0.006)
    small = AntiAlias(1, factor, "half_pixel")(blob)
    side = size // factor
    assert small.shape == (1, 1, side, side)
    weight = small / small.sum()
    centre = (weight[0, 0, ..., None] * make_grid(side, side, "half_pixel")).sum((0, 1))
    assert (centre - point).abs().max() * side / 2 < 0.02  # pixels of the small image


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_flat_image_stays_flat_inside(geometry: str, factor: int) -> None:
    small = AntiAlias(3, factor, geometry)(torch.full((1, 3, 64, 64), 0.7))
    margin = 3 if factor < 8 else 2
    inside = small[..., margin:-margin, margin:-margin]
    assert small.shape[-1] == 64 // factor and (inside - 0.7).abs().max() < 1e-5


def test_kernels_are_as_described() -> None:
    fomm, ours = AntiAlias(3, 4, "fomm"), AntiAlias(3, 4, "half_pixel")
    assert fomm.weight.shape == (3, 1, 13, 13) and ours.weight.shape == (3, 1, 12, 12)
    taps = np.exp(-((np.arange(13) - 6.0) ** 2) / (2 * 1.5**2))
    expected = np.outer(taps, taps) / taps.sum() ** 2
    assert np.abs(fomm.weight[0, 0].numpy() - expected).max() < 1e-7
    assert torch.allclose(ours.weight.sum((1, 2, 3)), torch.ones(3))
    assert torch.equal(ours.weight, ours.weight.flip(2, 3))


def test_fomm_strides_from_pixel_zero() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 20, 36] = 1
    small = AntiAlias(1, 4, "fomm")(image)
    assert divmod(int(small.argmax()), 16) == (5, 9)


def test_autocast_is_kept_away() -> None:
    image, matrix = noise(1, 1, 64, 64), noise(8, 8)
    down = AntiAlias(1, 4, "half_pixel")
    product = in_float32(torch.matmul)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.matmul(matrix, matrix).dtype == torch.bfloat16
        small, exact = down(image), product(matrix, matrix)
        assert torch.is_autocast_enabled("cpu")
    assert small.dtype == torch.float32 and torch.equal(small, down(image))
    assert torch.equal(exact, matrix @ matrix)
