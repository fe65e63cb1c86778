"""The kernels against torch: on the CPU, for which they are compiled too, and on a GPU."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from host_kernels import INVALID_VALUE, Checked
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sonomime.benchmarks.gpu.kernels import HWC8, LINEAR
from sonomime.training.models import operators
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.keypoints import motion as keypoint_motion
from sonomime.training.models.keypoints.motion import Keypoints

on_both_geometries = pytest.mark.parametrize("geometry", ["half_pixel", "fomm"])
on_both_motions = pytest.mark.parametrize("motion", ["sparse_motion", "compose_motion"])
NOT_FINITE = (math.nan, math.inf, -math.inf)
KINDS = ((torch.float32, LINEAR), (torch.float16, LINEAR), (torch.float16, HWC8))

# Of |found - wanted| / max(1, |wanted|). Float32: a coordinate near 1 is rounded to 1.2e-7, which
# at 256 pixels is 1.5e-5 of a pixel, times what neighbours differ by. Float16: half an ulp more.
# Deformations: a thousandth of one of 256 pixels.
LIMITS = {torch.float32: 2e-4, torch.float16: 2**-11 + 2e-4}
DEFORMATION_LIMIT = 5e-6


def near(found: Tensor, wanted: Tensor, limit: float) -> None:
    """Within the limit where finite; what is NaN in both does not count."""
    apart = (found.float() - wanted).abs() / wanted.abs().clamp(min=1)
    apart[found.isnan() & wanted.isnan()] = 0
    assert float(apart.max()) <= limit


def same(found: Tensor, wanted: Tensor, limit: float = LIMITS[torch.float32]) -> None:
    """Near where finite; NaN where NaN, infinite where infinite."""
    torch.testing.assert_close(found.float(), wanted, rtol=limit, atol=limit, equal_nan=True)


def warp(
    kernels: Checked, feature: Tensor, where: Tensor, occlusion: Tensor, geometry: str,
    layout: int = LINEAR, check: Any = same,
) -> Tensor:  # fmt: skip
    """Compare, and return the kernel's answer."""
    make = kernels.warp_in_eights if layout == HWC8 else kernels.warp_occlude
    found = make(feature, where, occlusion, geometry)
    # Without the rounding in between that torch's half has.
    wanted = operators.warp_occlude(feature.float(), where, occlusion, geometry)
    check(found, wanted, LIMITS[feature.dtype])
    return found


def move(
    kernels: Checked, motion: str, x: Tensor, s: Keypoints, d: Keypoints, geometry: str,
    check: Any = same, limit: float = LIMITS[torch.float32],
) -> Tensor:  # fmt: skip
    """Compare the operator of that name, and return torch's answer."""
    given: Any = (x, s, d, *((0.01,) if motion == "sparse_motion" else ()), geometry)
    wanted: Tensor = getattr(keypoint_motion, motion)(*given)
    check(getattr(kernels, motion)(*given), wanted, limit)
    return wanted


def keypoints(count: int) -> Keypoints:
    """Random local frames, some of them outside of the image."""
    value = torch.rand(1, count, 2) * 2.4 - 1.2
    return Keypoints(value, torch.eye(2) + 0.3 * torch.randn(1, count, 2, 2))


# Feature (channels, height, width) and map (height, width): sizes that are not multiples of
# anything; on a GPU also the largest nodes of the presets at 256 x 256.
@pytest.mark.parametrize(
    ("channels", "size", "map_size"),
    [
        (2, (256, 256), (64, 64)),
        (3, (17, 31), (5, 9)),
        (9, (5, 3), (11, 13)),
        (1, (1, 1), (1, 1)),
        (5, (1, 40), (7, 1)),
        pytest.param(256, (64, 64), (64, 64), marks=pytest.mark.gpu),
        pytest.param(32, (128, 128), (64, 64), marks=pytest.mark.gpu),
    ],
)
@on_both_geometries
def test_warp_occlude_is_as_close_to_torch_as_it_has_to_be(
    kernels: Checked, geometry: str, channels: int, size: tuple[int, int], map_size: tuple[int, int]
) -> None:
    """By a deformation of which a third is smooth, a third rough, a third far outside."""
    torch.manual_seed(0)
    # What is resized mixes neighbours, and a mixture of huge numbers has no digits left.
    furthest = 1e12 if map_size == size else 5.0
    grid = make_grid(*map_size, geometry)[None].nan_to_num()
    which = torch.randint(3, (1, *map_size, 1))
    far = furthest ** torch.rand(1, *map_size, 2) * torch.randn(1, *map_size, 2).sign()
    rough = grid + 0.4 * torch.randn_like(grid)
    where = torch.where(which == 0, grid + 0.02, torch.where(which == 1, rough, far))
    feature, occlusion = torch.randn(1, channels, *size), torch.rand(1, 1, *map_size)
    for dtype, layout in KINDS:
        warp(kernels, feature.to(dtype), where, occlusion, geometry, layout, near)


# 16 and 32 slots are held in registers, more are read twice, and beyond 64 a thread of a block
# makes the motions of several.
@pytest.mark.parametrize("count", [1, 10, 12, 15, 16, 31, 40, 70])
@on_both_geometries
def test_motions_are_as_close_to_torch_as_they_have_to_be(
    kernels: Checked, geometry: str, count: int
) -> None:
    torch.manual_seed(0)
    channels, size = (1, (64, 64)) if count == 12 else (3, (7, 9))
    points = keypoints(count), keypoints(count)
    small, logits = torch.rand(1, channels, *size), 5 * torch.randn(1, count + 1, *size)
    move(kernels, "sparse_motion", small, *points, geometry, near)
    move(kernels, "compose_motion", logits, *points, geometry, near, DEFORMATION_LIMIT)


SIZES = st.tuples(st.integers(2, 20), st.integers(2, 20))


@settings(max_examples=30)
@given(
    geometry=st.sampled_from(("half_pixel", "fomm")), kind=st.sampled_from(KINDS),
    channels=st.integers(1, 19), size=SIZES, map_size=SIZES,
    occlusion_size=st.tuples(st.integers(1, 20), st.integers(1, 20)), seed=st.integers(0, 99),
)  # fmt: skip
def test_warp_occlude_of_any_size(
    kernels: Checked, geometry: str, kind: tuple[torch.dtype, int], channels: int,
    size: tuple[int, int], map_size: tuple[int, int], occlusion_size: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    feature = torch.randn(1, channels, *size).to(kind[0])
    where = make_grid(*map_size, geometry)[None] + 0.5 * torch.randn(1, *map_size, 2)
    warp(kernels, feature, where, torch.rand(1, 1, *occlusion_size), geometry, kind[1])


@pytest.mark.parametrize(
    ("layout", "factor"), [(LINEAR, 1.0), (LINEAR, -1e-3), (LINEAR, 1 / 3), (HWC8, 1 / 3)]
)
def test_every_half_is_read_and_rounded_as_torch_does(
    kernels: Checked, layout: int, factor: float
) -> None:
    """All 65536 of them, as the channels of one pixel, times a factor."""
    feature = torch.arange(-(2**15), 2**15).short().view(torch.float16).view(1, -1, 1, 1)
    centre, factors = torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 1), factor)
    make = kernels.warp_in_eights if layout == HWC8 else kernels.warp_occlude
    found = make(feature, centre, factors, "half_pixel")
    wanted = (feature.float() * torch.tensor(factor)).half()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


@on_both_geometries
@pytest.mark.parametrize("size", [(8, 8), (11, 9)])
@pytest.mark.parametrize("bad", [*NOT_FINITE, 1e36])
def test_bad_coordinates_spoil_the_pixels_that_read_there_and_no_other(
    kernels: Checked, bad: float, size: tuple[int, int], geometry: str
) -> None:
    torch.manual_seed(0)
    feature, ones = torch.rand(1, 3, *size) + 1, torch.ones(1, 1, 8, 8)
    where = make_grid(8, 8, geometry)[None] * 0.8
    where[0, 3, 4, 0] = bad
    where[0, 6, 1, 1] = -bad
    found = warp(kernels, feature, where, ones, geometry)
    assert found.isfinite().any() and (found.isnan().any() or math.isfinite(bad))
    eight = kernels.warp_in_eights(feature.half(), where, ones, geometry)
    assert torch.equal(eight.isnan(), found.isnan())


@pytest.mark.parametrize("bad", NOT_FINITE)
def test_features_and_occlusions_that_are_not_finite(kernels: Checked, bad: float) -> None:
    torch.manual_seed(1)
    where = make_grid(8, 8, "half_pixel")[None] + 0.01
    for dtype, layout in ((torch.float32, LINEAR), (torch.float16, HWC8)):
        feature, occlusion = torch.randn(1, 9, 16, 12).to(dtype), torch.rand(1, 1, 8, 8)
        feature[0, 2, 3, 4] = occlusion[0, 0, 6, 6] = bad
        assert not warp(kernels, feature, where, occlusion, "half_pixel", layout).isfinite().all()


@on_both_geometries
@on_both_motions
@pytest.mark.parametrize("bad", [*NOT_FINITE, 3e38, 1e25])
def test_bad_keypoints_do_what_they_do_in_torch(
    kernels: Checked, bad: float, motion: str, geometry: str
) -> None:
    for which in range(4):  # source value, source jacobian, driving value, driving jacobian
        torch.manual_seed(2)
        tensors = [*keypoints(3), *keypoints(3)]
        tensors[which].view(-1)[1] = bad
        x = torch.rand(1, 4 if motion == "compose_motion" else 2, 9, 7)
        move(kernels, motion, x, Keypoints(*tensors[:2]), Keypoints(*tensors[2:]), geometry)


@on_both_motions
def test_singular_jacobians_are_held(kernels: Checked, motion: str) -> None:
    """A determinant of zero counts as positive also where both products are rounded, alike: fused
    arithmetic would see a difference."""
    torch.manual_seed(3)
    source, x = keypoints(1), torch.rand(1, 2, 6, 6)
    flat = [torch.full((2, 2), entry) for entry in (0.0, 0.1, 0.2, 0.3, 0.77, -1.3)]
    for determinant in (0.0, 1e-6, -1e-6, 9e-4, -9e-4):
        flat.append(torch.tensor([[0.01, 0.0], [0.0, determinant / 0.01]]))
    for jacobian in flat:
        driving = Keypoints(source.value, jacobian[None, None])
        assert move(kernels, motion, x, source, driving, "half_pixel").isfinite().all()


@pytest.mark.parametrize("bad", [*NOT_FINITE, 3e38])
def test_logits_and_sources_that_are_not_finite(kernels: Checked, bad: float) -> None:
    torch.manual_seed(4)
    for count in (2, 20, 40):
        points = keypoints(count), keypoints(count)
        logits = torch.randn(1, count + 1, 5, 6)
        logits[0, 0, 2, 2] = logits[0, count, 3, 3] = bad
        logits[0, :, 4, 4] = bad
        wanted = move(kernels, "compose_motion", logits, *points, "half_pixel")
        assert bool(wanted[0, 4, 4].isnan().all()) == (not math.isfinite(bad))
        assert wanted[0, 0].isfinite().all()
    small = torch.rand(1, 2, 8, 8)
    small[0, 1, 3, 4] = bad
    found = move(kernels, "sparse_motion", small, *points, "half_pixel")
    spoilt = (~found[0, 2].isfinite()).sum()
    assert spoilt == (not math.isfinite(bad)), "slot 0 is the source itself"


def test_arguments_that_make_no_sense(kernels: Checked) -> None:
    """Status 1 (cudaErrorInvalidValue), and nothing is written."""
    floats, output = (torch.full((4096,), x, device=kernels.device) for x in (0.0, 5.0))
    f, o = floats.data_ptr(), output.data_ptr()
    warp = [f, f, f, o, 8, 4, 4, 4, 4, 4, 4, 1, 1, HWC8, None]
    sparse_of = [f, f, f, f, f, o, 1, 4, 4, 2, 0.01, 1, None]
    compose_of = [f, f, f, f, f, o, 4, 4, 2, 1, None]
    assert kernels.library.sonomime_warp_occlude(*warp) == 0
    output.fill_(5)
    wrong = [(i, None) for i in range(4)] + [(i, 0) for i in range(4, 11)] + [(4, -3), (4, 2**28)]
    wrong += [(12, 0), (12, 7), (13, 2), (0, f + 2), (3, o + 2), (4, 2**31 - 1)]
    # More than float32 has coordinates, than int has offsets.
    wrong += [(6, 2**24 + 1), (6, 2**31 - 1)]
    bad_sparse = [(0, None), (5, None), (6, 0), (9, 0), (9, 1024), (6, 2**29), (7, 2**24 + 1)]
    bad_sparse += [(10, variance) for variance in (0.0, -0.01, *NOT_FINITE)]
    bad_compose = [(3, None), (5, None), (5, o + 4), (6, 0), (8, 0), (8, 1024), (7, 2**29)]
    for name, sound, changes in (
        ("warp_occlude", warp, wrong),
        ("sparse_motion", sparse_of, bad_sparse),
        ("compose_motion", compose_of, bad_compose),
    ):
        for index, value in changes:
            changed = [*sound[:index], value, *sound[index + 1 :]]
            status = getattr(kernels.library, f"sonomime_{name}")(*changed)
            assert status == INVALID_VALUE, (name, index, value)
    assert (output == 5).all()
