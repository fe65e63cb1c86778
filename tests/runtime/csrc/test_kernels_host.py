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
from sonomime.export.bodies import BODIES
from sonomime.training.models import operators
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.keypoints import operators as motion_operators
from sonomime.training.models.keypoints.keypoint_detector import Keypoints

GEOMETRIES = kernel_cases.GEOMETRIES
NOT_FINITE = (math.nan, math.inf, -math.inf)
POINTS = range(4)  # source value, source jacobian, driving value, driving jacobian


def same(found: Tensor, wanted: Tensor, limit: float = kernel_cases.LIMITS["float32"]) -> None:
    """Near where finite; NaN where NaN, infinite where infinite."""
    torch.testing.assert_close(found, wanted, rtol=limit, atol=limit, equal_nan=True)


def test_the_table_of_errors(kernels: Kernels) -> None:
    rows = kernel_cases.table(kernels)
    assert {key[0] for key in rows} == set(BODIES)
    assert {key[1:] for key in rows if key[0] == "WarpOcclude"} == {
        ("float32", "linear"), ("float16", "linear"), ("float16", "HWC8"),
    }  # fmt: skip
    for (op, dtype, layout), (_, worst) in rows.items():
        assert worst <= kernel_cases.limit(op, dtype), (op, dtype, layout, worst)


@settings(max_examples=30)
@given(
    geometry=st.sampled_from(GEOMETRIES),
    kind=st.sampled_from([(torch.float32, LINEAR), (torch.float16, LINEAR), (torch.float16, HWC8)]),
    channels=st.integers(1, 19),
    size=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    map_size=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    occlusion_size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 99),
)
def test_warp_occlude_of_any_size(
    kernels: Kernels,
    geometry: str,
    kind: tuple[torch.dtype, int],
    channels: int,
    size: tuple[int, int],
    map_size: tuple[int, int],
    occlusion_size: tuple[int, int],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    dtype, layout = kind
    feature = torch.randn(1, channels, *size).to(dtype)
    where = make_grid(*map_size, geometry)[None] + 0.5 * torch.randn(1, *map_size, 2)
    occlusion = torch.rand(1, 1, *occlusion_size)
    found = host_kernels.warp_occlude(kernels, feature, where, occlusion, geometry, layout)
    wanted = operators.warp_occlude(feature.float(), where, occlusion, geometry)
    same(found.float(), wanted, kernel_cases.LIMITS[str(dtype)[6:]])


@pytest.mark.parametrize("factor", [1.0, 1 / 3, 1e-3, 3.0, -1.0])
@pytest.mark.parametrize("layout", [LINEAR, HWC8])
def test_every_half_is_read_and_rounded_as_torch_does(
    kernels: Kernels, layout: int, factor: float
) -> None:
    """All 65536 of them, as the channels of one pixel, times a factor."""
    feature = torch.arange(-(2**15), 2**15).short().view(torch.float16).view(1, -1, 1, 1)
    centre, factors = torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 1), factor)
    found = host_kernels.warp_occlude(kernels, feature, centre, factors, "half_pixel", layout)
    wanted = (feature.float() * torch.tensor(factor)).half()
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found.nan_to_num(), wanted.nan_to_num())


@pytest.mark.parametrize("size", [8, 16, 32])
def test_identity_is_exact_up_to_the_border(kernels: Kernels, size: int) -> None:
    feature = torch.randn(1, 2, size, size)
    identity, ones = make_grid(8, 8, "half_pixel")[None], torch.ones(1, 1, 8, 8)
    found = host_kernels.warp_occlude(kernels, feature, identity, ones, "half_pixel")
    torch.testing.assert_close(found, feature, rtol=0, atol=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(8, 8), (16, 12), (11, 9)])
@pytest.mark.parametrize("bad", [*NOT_FINITE, 1e36])
def test_coordinates_that_make_no_sense(
    kernels: Kernels, bad: float, size: tuple[int, int], geometry: str
) -> None:
    """They spoil the pixels that read there, visibly, and no other."""
    torch.manual_seed(0)
    feature = torch.rand(1, 3, *size) + 1
    where = make_grid(8, 8, geometry)[None] * 0.8
    where[0, 3, 4, 0] = bad
    where[0, 6, 1, 1] = -bad
    ones = torch.ones(1, 1, 8, 8)
    found = host_kernels.warp_occlude(kernels, feature, where, ones, geometry)
    wanted = operators.warp_occlude(feature, where, ones, geometry)
    same(found, wanted)
    assert found.isfinite().any() and (found.isnan().any() or math.isfinite(bad))
    eight = host_kernels.warp_occlude(kernels, feature.half(), where, ones, geometry, HWC8)
    assert torch.equal(eight.isnan(), found.isnan())


@pytest.mark.parametrize("size", [(8, 8), (16, 12)])
@pytest.mark.parametrize("bad", NOT_FINITE)
def test_features_and_occlusions_that_are_not_finite(
    kernels: Kernels, bad: float, size: tuple[int, int]
) -> None:
    torch.manual_seed(1)
    feature, occlusion = torch.randn(1, 9, *size), torch.rand(1, 1, 8, 8)
    where = make_grid(8, 8, "half_pixel")[None] + 0.01
    feature[0, 2, 3, 4] = bad
    occlusion[0, 0, 6, 6] = bad
    found = host_kernels.warp_occlude(kernels, feature, where, occlusion, "half_pixel")
    wanted = operators.warp_occlude(feature, where, occlusion, "half_pixel")
    same(found, wanted)
    assert not wanted.isfinite().all()
    half = feature.half()
    found = host_kernels.warp_occlude(kernels, half, where, occlusion, "half_pixel", HWC8)
    wanted = operators.warp_occlude(half.float(), where, occlusion, "half_pixel")
    same(found.float(), wanted, kernel_cases.LIMITS["float16"])


Motion = Callable[[Kernels, Tensor, Keypoints, Keypoints, str], tuple[Tensor, Tensor]]


def sparse(
    kernels: Kernels, x: Tensor, s: Keypoints, d: Keypoints, geometry: str
) -> tuple[Tensor, Tensor]:
    found = host_kernels.sparse_motion(kernels, x, s, d, 0.01, geometry)
    return found, motion_operators.sparse_motion(x, s, d, 0.01, geometry)


def compose(
    kernels: Kernels, x: Tensor, s: Keypoints, d: Keypoints, geometry: str
) -> tuple[Tensor, Tensor]:
    found = host_kernels.compose_motion(kernels, x, s, d, geometry)
    return found, motion_operators.compose_motion(x, s, d, geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("motion", [sparse, compose])
@pytest.mark.parametrize("which", POINTS)
@pytest.mark.parametrize("bad", [*NOT_FINITE, 3e38, 1e25])
def test_keypoints_that_make_no_sense(
    kernels: Kernels, bad: float, which: int, motion: Motion, geometry: str
) -> None:
    torch.manual_seed(2)
    tensors = [*kernel_cases.keypoints(3), *kernel_cases.keypoints(3)]
    tensors[which] = tensors[which].clone()
    tensors[which].view(-1)[1] = bad
    x = torch.rand(1, 4 if motion is compose else 2, 9, 7)
    found, wanted = motion(kernels, x, Keypoints(*tensors[:2]), Keypoints(*tensors[2:]), geometry)
    same(found, wanted)


@pytest.mark.parametrize("motion", [sparse, compose])
@pytest.mark.parametrize("determinant", [0.0, 1e-6, -1e-6, 9e-4, -9e-4])
def test_singular_jacobians_are_held(kernels: Kernels, determinant: float, motion: Motion) -> None:
    torch.manual_seed(3)
    source = kernel_cases.keypoints(1)
    flat = Keypoints(source.value, torch.tensor([[[[0.01, 0.0], [0.0, determinant / 0.01]]]]))
    x = torch.rand(1, 2, 6, 6)
    found, wanted = motion(kernels, x, source, flat, "half_pixel")
    assert wanted.isfinite().all()
    same(found, wanted)
    found, wanted = motion(
        kernels, x, source, Keypoints(source.value, torch.zeros(1, 1, 2, 2)), "half_pixel"
    )
    assert wanted.isfinite().all()
    same(found, wanted)


@pytest.mark.parametrize("motion", [sparse, compose])
@pytest.mark.parametrize("entry", [0.1, 0.2, 0.3, 0.77, -1.3])
def test_a_determinant_of_zero_counts_as_positive(
    kernels: Kernels, entry: float, motion: Motion
) -> None:
    """Also where both products are rounded, alike; fused arithmetic would see a difference."""
    torch.manual_seed(6)
    source = kernel_cases.keypoints(1)
    flat = Keypoints(source.value, torch.full((1, 1, 2, 2), entry))
    found, wanted = motion(kernels, torch.rand(1, 2, 6, 6), source, flat, "half_pixel")
    assert wanted.isfinite().all()
    same(found, wanted)


@pytest.mark.parametrize("count", [2, 20, 40])
@pytest.mark.parametrize("bad", [*NOT_FINITE, 3e38, -3e38])
def test_logits_that_are_not_finite(kernels: Kernels, bad: float, count: int) -> None:
    torch.manual_seed(4)
    source, driving = kernel_cases.keypoints(count), kernel_cases.keypoints(count)
    logits = torch.randn(1, count + 1, 5, 6)
    logits[0, 0, 2, 2] = bad
    logits[0, count, 3, 3] = bad
    logits[0, :, 4, 4] = bad
    found, wanted = compose(kernels, logits, source, driving, "half_pixel")
    same(found, wanted)
    assert bool(wanted[0, 4, 4].isnan().all()) == (not math.isfinite(bad))
    assert wanted[0, 0].isfinite().all()


@pytest.mark.parametrize("bad", NOT_FINITE)
def test_sources_that_are_not_finite(kernels: Kernels, bad: float) -> None:
    torch.manual_seed(5)
    small = torch.rand(1, 2, 8, 8)
    small[0, 1, 3, 4] = bad
    source, driving = kernel_cases.keypoints(4), kernel_cases.keypoints(4)
    found, wanted = sparse(kernels, small, source, driving, "half_pixel")
    same(found, wanted)
    # Slot 0 is the source itself, and nothing is spilt beside it.
    assert (~found[0, 2].isfinite()).sum() == 1


def test_arguments_that_make_no_sense(kernels: Kernels) -> None:
    """Status 1 (cudaErrorInvalidValue), and nothing is written."""
    floats = torch.zeros(4096)
    output = torch.full((4096,), 5.0)
    f, o = floats.data_ptr(), output.data_ptr()
    warp = [f, f, f, o, 8, 4, 4, 4, 4, 4, 4, 1, 1, HWC8, None]
    assert kernels.library.sonomime_warp_occlude(*warp) == 0
    output.fill_(5)
    wrong = [(i, None) for i in range(4)] + [(i, 0) for i in range(4, 11)] + [(4, -3), (4, 2**28)]
    wrong += [(12, 0), (12, 7), (13, 2), (0, f + 2), (3, o + 2), (4, 2**31 - 1)]
    for index, value in wrong:
        changed = [*warp[:index], value, *warp[index + 1 :]]
        assert kernels.library.sonomime_warp_occlude(*changed) == INVALID_VALUE, (index, value)
    for width in (2**24 + 1, 2**31 - 1):  # more than float32 has coordinates, than int has offsets
        longest = [f, f, f, o, 1, 1, width, 1, 1, 1, 1, 1, 0, LINEAR, None]
        assert kernels.library.sonomime_warp_occlude(*longest) == INVALID_VALUE
    sparse_of = [f, f, f, f, f, o, 1, 4, 4, 2, 0.01, 1, 0, None]
    wrong = [(0, None), (5, None), (6, 0), (9, 0), (9, 1024), (12, 2), (6, 2**29), (7, 2**24 + 1)]
    wrong += [(10, variance) for variance in (0.0, -0.01, *NOT_FINITE)]
    for index, value in wrong:
        changed = [*sparse_of[:index], value, *sparse_of[index + 1 :]]
        assert kernels.library.sonomime_sparse_motion(*changed) == INVALID_VALUE, (index, value)
    compose_of = [f, f, f, f, f, o, 4, 4, 2, 1, 0, None]
    wrong = [(3, None), (5, None), (5, o + 4), (6, 0), (8, 0), (8, 1024), (10, 2), (7, 2**29)]
    for index, value in wrong:
        changed = [*compose_of[:index], value, *compose_of[index + 1 :]]
        assert kernels.library.sonomime_compose_motion(*changed) == INVALID_VALUE, (index, value)
    assert (output == 5).all()
