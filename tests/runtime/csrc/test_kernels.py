"""The kernels against torch and OpenCV: compiled for the CPU, and on a GPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from composed_cases import LEVELS, smooth_layers, speckle
from host_kernels import INVALID_VALUE, Checked
from torch import Tensor

from sonomime.benchmarks.gpu.kernels import HWC8, LINEAR
from sonomime.runtime.compose import Composer, enlarge
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.media.pixels import levels_apart
from sonomime.training.models import operators
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.keypoints import motion as keypoint_motion
from sonomime.training.models.keypoints.motion import Keypoints

GEOMETRIES = ("half_pixel", "fomm_aligned", "fomm_unaligned")
in_all_geometries = pytest.mark.parametrize("geometry", GEOMETRIES)
on_both_motions = pytest.mark.parametrize("motion", ["sparse_motion", "compose_motion"])
SQUARE = 64  # side of the model's picture
ON_A_GPU = pytest.param((1920, 1080), marks=pytest.mark.gpu)
NOT_FINITE = (math.nan, math.inf, -math.inf)
KINDS = ((torch.float32, LINEAR), (torch.float16, LINEAR), (torch.float16, HWC8))

# Of |found - wanted| / max(1, |wanted|). Float32: a coordinate near 1 is rounded to 1.2e-7, which
# at 256 pixels is 1.5e-5 of a pixel, times what neighbours differ by. Float16: half an ulp more.
# Deformations: a thousandth of one of 256 pixels.
LIMITS = {torch.float32: 2e-4, torch.float16: 2**-11 + 2e-4}
DEFORMATION_LIMIT = 5e-6


def same(found: Tensor, wanted: Tensor, limit: float = LIMITS[torch.float32]) -> None:
    """Within the limit where finite; NaN where NaN, infinite where infinite."""
    found = found.float()
    apart = (found - wanted).abs() / wanted.abs().clamp(min=1)
    apart[(found == wanted) | (found.isnan() & wanted.isnan())] = 0
    assert float(apart.max()) <= limit


def warp(
    kernels: Checked, feature: Tensor, where: Tensor, occlusion: Tensor, geometry: str,
    layout: int = LINEAR,
) -> Tensor:  # fmt: skip
    """Compare, and return the kernel's answer."""
    make = kernels.warp_in_eights if layout == HWC8 else kernels.warp_occlude
    found = make(feature, where, occlusion, geometry)
    # Without the rounding in between that torch's half has.
    wanted = operators.warp_occlude(feature.float(), where, occlusion, geometry)
    same(found, wanted, LIMITS[feature.dtype])
    return found


def move(
    kernels: Checked, motion: str, x: Tensor, s: Keypoints, d: Keypoints, geometry: str,
    limit: float = LIMITS[torch.float32],
) -> Tensor:  # fmt: skip
    """Compare the operator of that name, and return torch's answer."""
    given: Any = (x, s, d, *((0.01,) if motion == "sparse_motion" else ()), geometry)
    wanted: Tensor = getattr(keypoint_motion, motion)(*given)
    same(getattr(kernels, motion)(*given), wanted, limit)
    return wanted


def keypoints(count: int) -> Keypoints:
    """Random local frames, some of them outside of the image."""
    value = torch.rand(1, count, 2) * 2.4 - 1.2
    return Keypoints(value, torch.eye(2) + 0.3 * torch.randn(1, count, 2, 2))


# Channels, and (height, width) of feature, deformation and occlusion: sizes that are not multiples
# of anything; on a GPU also the largest nodes of the presets at 256 x 256.
@pytest.mark.parametrize(
    ("channels", "size", "map_size", "seen_size"),
    [
        (2, (256, 256), (64, 64), (64, 64)),
        (3, (17, 31), (5, 9), (12, 2)),
        (9, (5, 3), (11, 13), (1, 20)),
        (1, (1, 1), (1, 1), (1, 1)),
        (5, (1, 40), (7, 1), (1, 40)),
        (17, (2, 20), (2, 20), (5, 3)),
        (19, (20, 2), (3, 19), (20, 2)),
        pytest.param(256, (64, 64), (64, 64), (64, 64), marks=pytest.mark.gpu),
        pytest.param(32, (128, 128), (64, 64), (64, 64), marks=pytest.mark.gpu),
    ],
)
@in_all_geometries
def test_warp_occlude_is_as_close_to_torch_as_it_has_to_be(
    kernels: Checked, geometry: str, channels: int, size: tuple[int, int],
    map_size: tuple[int, int], seen_size: tuple[int, int],
) -> None:  # fmt: skip
    """By a deformation of which a third is smooth, a third rough, a third far outside."""
    torch.manual_seed(0)
    # What is resized mixes neighbours, and a mixture of huge numbers has no digits left.
    furthest = 1e12 if map_size == size else 5.0
    grid = make_grid(*map_size, geometry)[None].nan_to_num()
    which = torch.randint(3, (1, *map_size, 1))
    far = furthest ** torch.rand(1, *map_size, 2) * torch.randn(1, *map_size, 2).sign()
    rough = grid + 0.4 * torch.randn_like(grid)
    where = torch.where(which == 0, grid + 0.02, torch.where(which == 1, rough, far))
    feature, occlusion = torch.randn(1, channels, *size), torch.rand(1, 1, *seen_size)
    for dtype, layout in KINDS:
        warp(kernels, feature.to(dtype), where, occlusion, geometry, layout)


# 16 and 32 slots are held in registers, more are read twice, and beyond 64 a thread of a block
# makes the motions of several.
@pytest.mark.parametrize("count", [1, 10, 12, 15, 16, 31, 40, 70])
@in_all_geometries
def test_motions_are_as_close_to_torch_as_they_have_to_be(
    kernels: Checked, geometry: str, count: int
) -> None:
    torch.manual_seed(0)
    channels, size = (1, (64, 64)) if count == 12 else (3, (7, 9))
    points = keypoints(count), keypoints(count)
    small, logits = torch.rand(1, channels, *size), 5 * torch.randn(1, count + 1, *size)
    move(kernels, "sparse_motion", small, *points, geometry)
    move(kernels, "compose_motion", logits, *points, geometry, DEFORMATION_LIMIT)


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


@in_all_geometries
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


@in_all_geometries
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
    for geometry in GEOMETRIES[:2]:
        found = move(kernels, "sparse_motion", small, *points, geometry)
        spoilt = (~found[0, 2].isfinite()).sum()
        assert spoilt == (not math.isfinite(bad)), "slot 0 is the source itself"


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("shape", [(64, 64), (101, 77), (51, 127), (40, 31), (9, 201), ON_A_GPU])
def test_composed_frames_are_those_of_opencv(
    kernels: Checked, shape: tuple[int, int], channels: tuple[int, ...]
) -> None:
    picture, box = speckle(*shape, *channels), Letterbox.fit(*shape, SQUARE)
    for seed, grid in enumerate(((16, 16), (64, 64), (12, 20))):
        size = shape if seed else (60, 45)  # another one than the source's
        layers = smooth_layers(*grid, 3 if channels else 1, seed)
        found = kernels.compose_frame(enlarge(picture, box, size), layers)
        wanted = Composer(picture, box, size).compose(*layers)
        assert levels_apart(found, wanted) <= LEVELS
        assert wanted.std() > 10


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, -1e30])
def test_composed_layers_that_make_no_sense(kernels: Checked, bad: float) -> None:
    """They spoil what lies around them, black where it is not a number, and reach no other memory
    than the picture's."""
    picture, box = speckle(100, 75), Letterbox.fit(100, 75, SQUARE)
    source = enlarge(picture, box, (100, 75))
    before = kernels.compose_frame(source, smooth_layers(16, 16))
    for which in range(5):
        layers = smooth_layers(16, 16)
        layers[which][0][(8, 8, 0) if which < 2 else (0, 8, 8)] = bad
        found = kernels.compose_frame(source, layers)
        spoilt = np.zeros((75, 100), bool)
        spoilt[28:53, 40:65] = True  # three cells of the layers, of 6 pixels each, around it
        assert np.array_equal(found[~spoilt], before[~spoilt])
        assert not math.isnan(bad) or (found[spoilt] == 0).sum() > 50


def test_arguments_that_make_no_sense(kernels: Checked) -> None:
    """Status 1 (cudaErrorInvalidValue), and nothing is written."""
    floats, output = (torch.full((4096,), x, device=kernels.device) for x in (0.0, 5.0))
    f, o = floats.data_ptr(), output.data_ptr()
    warp = [f, f, f, o, 8, 4, 4, 4, 4, 4, 4, 1, 0, 1, HWC8, None]
    sparse_of = [f, f, f, f, f, o, 1, 4, 4, 2, 0.01, 1, 0, None]
    compose_of = [f, f, f, f, f, o, 4, 4, 2, 1, None]
    wrong = [(i, None) for i in range(4)] + [(i, 0) for i in range(4, 11)] + [(4, -3), (4, 2**28)]
    wrong += [(13, 0), (13, 7), (14, 2), (0, f + 2), (3, o + 2), (4, 2**31 - 1)]
    # More than float32 has coordinates, than int has offsets.
    wrong += [(6, 2**24 + 1), (6, 2**31 - 1)]
    bad_sparse = [(0, None), (5, None), (6, 0), (9, 0), (9, 1024), (6, 2**29), (7, 2**24 + 1)]
    bad_sparse += [(10, variance) for variance in (0.0, -0.01, *NOT_FINITE)]
    bad_compose = [(3, None), (5, None), (5, o + 4), (6, 0), (8, 0), (8, 1024), (7, 2**29)]
    # Each argument of a frame, after the pointers: a good value, then bad ones.
    counts = {
        "channels": (3, 0, 1, 2, 4, -3), "map_height": (4, 0, -4, 2**29),
        "map_width": (4, 0, 2**31 - 1), "gain": (3, 0, 2), "offset": (1, 0, 4),
        "gate": (1, 2, -1), "size": (8, 0, 1, 7, 2**16, 2**31 - 1),
        "box_x": (0, -1, 1, 2**31 - 1), "box_y": (1, -1, 3), "box_width": (8, 0, 9, 2**31 - 1),
        "box_height": (6, 0, 8), "height": (6, 0, 8, 2**30), "width": (8, 0, 9),
        "above": (1, -1, 3), "left": (0, -1, 1, 2**31 - 1), "picture_height": (24, 0, 20, 2**25),
        "picture_width": (24, 0, 23, 2**25),
    }  # fmt: skip
    frame_of = [f] * 8 + [o, *(count[0] for count in counts.values()), None]
    bad_frame = [(i, None) for i in range(9)]
    bad_frame += [(i, bad) for i, values in enumerate(counts.values(), 9) for bad in values[1:]]
    for name, sound, changes in (
        ("warp_occlude", warp, wrong),
        ("sparse_motion", sparse_of, bad_sparse),
        ("compose_motion", compose_of, bad_compose),
        ("compose_frame", frame_of, bad_frame),
    ):
        launch = getattr(kernels.library, f"sonomime_{name}")
        assert launch(*sound) == 0
        output.fill_(5)
        for index, value in changes:
            changed = [*sound[:index], value, *sound[index + 1 :]]
            assert launch(*changed) == INVALID_VALUE, (name, index, value)
        assert (output == 5).all()
