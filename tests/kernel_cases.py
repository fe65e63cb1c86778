"""What the kernels are tried on, and how far they may be from torch."""

from __future__ import annotations

from collections.abc import Iterator

import host_kernels
import torch
from torch import Tensor

from sonomime.benchmarks.gpu.kernels import HWC8, LINEAR, Kernels
from sonomime.training.models import operators
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.keypoints import dense_motion
from sonomime.training.models.keypoints.keypoint_detector import Keypoints

GEOMETRIES = ("half_pixel", "fomm")

# Feature (channels, height, width) and map (height, width): sizes that are not multiples of
# anything; on a GPU also the largest nodes of the presets at 256 x 256.
WARPS = [
    ((2, 256, 256), (64, 64)),
    ((3, 17, 31), (5, 9)),
    ((9, 5, 3), (11, 13)),
    ((1, 1, 1), (1, 1)),
    ((5, 1, 40), (7, 1)),
]
LARGE_WARPS = [((256, 64, 64), (64, 64)), ((32, 128, 128), (64, 64))]
KINDS = ((torch.float32, LINEAR), (torch.float16, LINEAR), (torch.float16, HWC8))
# Keypoints, channels, height, width; 16 and 32 slots are held in registers, more are read twice,
# and beyond 64 a thread of a block makes the motions of several.
MOTIONS = [(12, 1, 64, 64), (10, 3, 64, 64), (1, 1, 3, 5), (15, 2, 7, 9), (16, 1, 6, 6)]
MOTIONS += [(31, 1, 5, 4), (40, 1, 5, 4), (70, 1, 5, 4)]

# Of |found - wanted| / max(1, |wanted|). Float32: a coordinate near 1 is rounded to 1.2e-7, which
# at 256 pixels is 1.5e-5 of a pixel, times what neighbours differ by. Float16: half an ulp more.
# Deformations: a thousandth of one of 256 pixels.
LIMITS = {torch.float32: 2e-4, torch.float16: 2**-11 + 2e-4}
DEFORMATION_LIMIT = 5e-6


def keypoints(count: int, device: str = "cpu") -> Keypoints:
    """Random local frames, some of them outside of the image."""
    value = torch.rand(1, count, 2) * 2.4 - 1.2
    jacobian = torch.eye(2) + 0.3 * torch.randn(1, count, 2, 2)
    return Keypoints(value.to(device), jacobian.to(device))


def deformation(size: tuple[int, int], geometry: str, furthest: float) -> Tensor:
    """A deformation with everything in it: a third smooth, a third rough, a third far outside."""
    grid = make_grid(*size, geometry)[None].nan_to_num()
    which = torch.randint(3, (1, *size, 1))
    far = furthest ** torch.rand(1, *size, 2) * torch.randn(1, *size, 2).sign()
    rough = grid + 0.4 * torch.randn_like(grid)
    return torch.where(which == 0, grid + 0.02, torch.where(which == 1, rough, far))


def differences(kernels: Kernels, device: str = "cpu") -> Iterator[tuple[str, float, float]]:
    """What was computed, how far the kernel on ``device`` is from torch on the CPU, and the
    limit."""
    torch.manual_seed(0)
    for geometry in GEOMETRIES:
        for (channels, *size), map_size in WARPS if device == "cpu" else WARPS + LARGE_WARPS:
            feature = torch.randn(1, channels, *size)
            # What is resized mixes neighbours, and a mixture of huge numbers has no digits left.
            where = deformation(map_size, geometry, 1e12 if map_size == (*size,) else 5.0)
            occlusion = torch.rand(1, 1, *map_size)
            for dtype, layout in KINDS:
                given = feature.to(dtype)
                inputs = [t.to(device) for t in (given, where, occlusion)]
                found = host_kernels.warp_occlude(kernels, *inputs, geometry, layout)
                # Without the rounding in between that torch's half has.
                wanted = operators.warp_occlude(given.float(), where, occlusion, geometry)
                name = f"warp {geometry} {channels} {size} {map_size} {dtype} {layout}"
                yield name, _apart(found, wanted), LIMITS[dtype]
        for count, channels, *size in MOTIONS:
            points = keypoints(count), keypoints(count)
            there = [Keypoints(*(t.to(device) for t in each)) for each in points]
            name = f"{geometry} {count} {channels} {size}"
            small, logits = torch.rand(1, channels, *size), 5 * torch.randn(1, count + 1, *size)
            found = host_kernels.sparse_motion(kernels, small.to(device), *there, 0.01, geometry)
            wanted = dense_motion.sparse_motion(small, *points, 0.01, geometry)
            yield f"sparse {name}", _apart(found, wanted), LIMITS[torch.float32]
            found = host_kernels.compose_motion(kernels, logits.to(device), *there, geometry)
            wanted = dense_motion.compose_motion(logits, *points, geometry)
            yield f"compose {name}", _apart(found, wanted), DEFORMATION_LIMIT


def _apart(found: Tensor, wanted: Tensor) -> float:
    """The largest |found - wanted| / max(1, |wanted|); what is NaN in both does not count."""
    found = found.float().cpu()
    apart = (found - wanted).abs() / wanted.abs().clamp(min=1)
    apart[found.isnan() & wanted.isnan()] = 0
    return float(apart.max())
