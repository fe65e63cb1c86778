"""The kernels, compiled for the host, against torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import host_kernels
import kernel_cases
import pytest
import torch
from host_kernels import INVALID_VALUE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sonomime.benchmarks.gpu.kernels import HWC8, LINEAR, Kernels
from sonomime.training.models import operators
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.keypoints import dense_motion
from sonomime.training.models.keypoints.keypoint_detector import Keypoints

GEOMETRIES = kernel_cases.GEOMETRIES
NOT_FINITE = (math.nan, math.inf, -math.inf)


def same(found: Tensor, wanted: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Near where finite; NaN where NaN, infinite where infinite."""
    limit = kernel_cases.LIMITS[dtype]
    torch.testing.assert_close(found.float(), wanted, rtol=limit, atol=limit, equal_nan=True)


def test_they_are_as_close_to_torch_as_they_have_to_be(kernels: Kernels) -> None:
    rows = list(kernel_cases.differences(kernels))
    assert len(rows) > 60 and [row for row in rows if row[1] > row[2]] == []


SIZES = st.tuples(st.integers(2, 20), st.integers(2, 20))


@settings(max_examples=30)
@given(
    geometry=st.sampled_from(GEOMETRIES), kind=st.sampled_from(kernel_cases.KINDS),
    shape=st.tuples(st.integers(1, 19), st.integers(2, 20), st.integers(2, 20)), map_size=SIZES,
    occlusion_size=st.tuples(st.integers(1, 20), st.integers(1, 20)), seed=st.integers(0, 99),
)  # fmt: skip
def test_warp_occlude_of_any_size(
    kernels: Kernels, geometry: str, kind: tuple[torch.dtype, int], shape: tuple[int, ...],
    map_size: tuple[int, int], occlusion_size: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    dtype, layout = kind
    feature = torch.randn(1, *shape).to(dtype)
    where = make_grid(*map_size, geometry)[None] + 0.5 * torch.randn(1, *map_size, 2)
    occlusion = torch.rand(1, 1, *occlusion_size)
    found = host_kernels.warp_occlude(kernels, feature, where, occlusion, geometry, layout)
    same(found, operators.warp_occlude(feature.float(), where, occlusion, geometry), dtype)


@pytest.mark.parametrize("factor", [1.0, 1 / 3, -1e-3])
@pytest.mark.parametrize("layout", [LINEAR, HWC8])
def test_every_half_is_read_and_rounded_as_torch_does(
    kernels: Kernels, layout: int, factor: float
) -> None:
    """All 65536 of them, as the channels of one pixel, times a factor."""
    feature = torch.arange(-(2**15), 2**15).short().view(torch.float16).view(1, -1, 1, 1)
    centre, factors = torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 1), factor)
    found = host_kernels.warp_occlude(kernels, feature, centre, factors, "half_pixel", layout)
    wanted = (feature.float() * torch.tensor(factor)).half()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(8, 8), (11, 9)])
@pytest.mark.parametrize("bad", [*NOT_FINITE, 1e36])
def test_bad_coordinates_spoil_the_pixels_that_read_there_and_no_other(
    kernels: Kernels, bad: float, size: tuple[int, int], geometry: str
) -> None:
    torch.manual_seed(0)
    feature = torch.rand(1, 3, *size) + 1
    where = make_grid(8, 8, geometry)[None] * 0.8
    where[0, 3, 4, 0] = bad
    where[0, 6, 1, 1] = -bad
    ones = torch.ones(1, 1, 8, 8)
    found = host_kernels.warp_occlude(kernels, feature, where, ones, geometry)
    same(found, operators.warp_occlude(feature, where, ones, geometry))
    assert found.isfinite().any() and (found.isnan().any() or math.isfinite(bad))
    eight = host_kernels.warp_occlude(kernels, feature.half(), where, ones, geometry, HWC8)
    assert torch.equal(eight.isnan(), found.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("bad", NOT_FINITE)
def test_features_and_occlusions_that_are_not_finite(
    kernels: Kernels, bad: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(1)
    feature, occlusion = torch.randn(1, 9, 16, 12).to(dtype), torch.rand(1, 1, 8, 8)
    where = make_grid(8, 8, "half_pixel")[None] + 0.01
    feature[0, 2, 3, 4] = occlusion[0, 0, 6, 6] = bad
    layout = LINEAR if dtype == torch.float32 else HWC8
    found = host_kernels.warp_occlude(kernels, feature, where, occlusion, "half_pixel", layout)
    wanted = operators.warp_occlude(feature.float(), where, occlusion, "half_pixel")
    same(found, wanted, dtype)
    assert not wanted.isfinite().all()


Motion = Callable[[Kernels, Tensor, Keypoints, Keypoints, str], Tensor]


def sparse(kernels: Kernels, x: Tensor, s: Keypoints, d: Keypoints, geometry: str) -> Tensor:
    """Compare, and return torch's answer."""
    wanted = dense_motion.sparse_motion(x, s, d, 0.01, geometry)
    same(host_kernels.sparse_motion(kernels, x, s, d, 0.01, geometry), wanted)
    return wanted


def compose(kernels: Kernels, x: Tensor, s: Keypoints, d: Keypoints, geometry: str) -> Tensor:
    wanted = dense_motion.compose_motion(x, s, d, geometry)
    same(host_kernels.compose_motion(kernels, x, s, d, geometry), wanted)
    return wanted


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("motion", [sparse, compose])
@pytest.mark.parametrize("bad", [*NOT_FINITE, 3e38, 1e25])
def test_bad_keypoints_do_what_they_do_in_torch(
    kernels: Kernels, bad: float, motion: Motion, geometry: str
) -> None:
    for which in range(4):  # source value, source jacobian, driving value, driving jacobian
        torch.manual_seed(2)
        tensors = [*kernel_cases.keypoints(3), *kernel_cases.keypoints(3)]
        tensors[which].view(-1)[1] = bad
        x = torch.rand(1, 4 if motion is compose else 2, 9, 7)
        motion(kernels, x, Keypoints(*tensors[:2]), Keypoints(*tensors[2:]), geometry)


@pytest.mark.parametrize("motion", [sparse, compose])
def test_singular_jacobians_are_held(kernels: Kernels, motion: Motion) -> None:
    """A determinant of zero counts as positive also where both products are rounded, alike: fused
    arithmetic would see a difference."""
    torch.manual_seed(3)
    source, x = kernel_cases.keypoints(1), torch.rand(1, 2, 6, 6)
    flat = [torch.full((2, 2), entry) for entry in (0.0, 0.1, 0.2, 0.3, 0.77, -1.3)]
    for determinant in (0.0, 1e-6, -1e-6, 9e-4, -9e-4):
        flat.append(torch.tensor([[0.01, 0.0], [0.0, determinant / 0.01]]))
    for jacobian in flat:
        driving = Keypoints(source.value, jacobian[None, None])
        assert motion(kernels, x, source, driving, "half_pixel").isfinite().all()


@pytest.mark.parametrize("bad", [*NOT_FINITE, 3e38])
def test_logits_and_sources_that_are_not_finite(kernels: Kernels, bad: float) -> None:
    torch.manual_seed(4)
    for count in (2, 20, 40):
        points = kernel_cases.keypoints(count), kernel_cases.keypoints(count)
        logits = torch.randn(1, count + 1, 5, 6)
        logits[0, 0, 2, 2] = logits[0, count, 3, 3] = bad
        logits[0, :, 4, 4] = bad
        wanted = compose(kernels, logits, *points, "half_pixel")
        assert bool(wanted[0, 4, 4].isnan().all()) == (not math.isfinite(bad))
        assert wanted[0, 0].isfinite().all()
    small = torch.rand(1, 2, 8, 8)
    small[0, 1, 3, 4] = bad
    found = sparse(kernels, small, *points, "half_pixel")
    spoilt = (~found[0, 2].isfinite()).sum()
    assert spoilt == (not math.isfinite(bad)), "slot 0 is the source itself"


def test_arguments_that_make_no_sense(kernels: Kernels) -> None:
    """Status 1 (cudaErrorInvalidValue), and nothing is written."""
    floats, output = torch.zeros(4096), torch.full((4096,), 5.0)
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
