"""What the kernels are tried on, and how far they are from torch.

    python tests/kernel_cases.py [FILE]

compiles the kernels for the host and prints (and writes) the page with the table of the largest
differences, which `tests/runtime/test_kernels_host.py` holds below :func:`limit`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import host_kernels
import torch
from torch import Tensor

from sonomime.benchmarks.gpu.kernels import DTYPES, HWC8, LINEAR, Kernels, compiler
from sonomime.training.models import operators
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.keypoints import operators as motion_operators
from sonomime.training.models.keypoints.keypoint_detector import Keypoints

GEOMETRIES = ("half_pixel", "fomm")

# Feature (channels, height, width) and map (height, width): the node of the presets at 256 x 256,
# others of its kind, then sizes that are no multiples of anything.
WARPS = [
    ((256, 64, 64), (64, 64)),
    ((64, 64, 64), (64, 64)),
    ((32, 128, 128), (64, 64)),
    ((2, 256, 256), (64, 64)),
    ((3, 17, 31), (5, 9)),
    ((9, 5, 3), (11, 13)),
    ((1, 1, 1), (1, 1)),
    ((5, 1, 40), (7, 1)),
    ((8, 12, 16), (12, 8)),
]
# Keypoints, channels, height, width; 16 and 32 slots are held in registers, more are read twice,
# and beyond 64 a thread of a block makes the motions of several.
MOTIONS = [
    (12, 1, 64, 64),
    (10, 3, 64, 64),
    (1, 1, 3, 5),
    (15, 2, 7, 9),
    (16, 1, 6, 6),
    (31, 1, 5, 4),
    (40, 1, 5, 4),
    (70, 1, 5, 4),
]


class Case(NamedTuple):
    """One comparison: in the table's words, and what both sides made."""

    op: str
    dtype: str
    layout: str
    found: Tensor
    wanted: Tensor


# Of |found - wanted| / max(1, |wanted|). Float32: a coordinate near 1 is rounded to 1.2e-7, which
# at 256 pixels is 1.5e-5 of a pixel, times what neighbours differ by. Float16: half an ulp more.
LIMITS = {"float32": 2e-4, "float16": 2**-11 + 2e-4}


def limit(op: str, dtype: str) -> float:
    """The same; deformations are float32 throughout: a thousandth of one of 256 pixels."""
    return 5e-6 if op == "ComposeMotion" else LIMITS[dtype]


def keypoints(count: int) -> Keypoints:
    """Random local frames, some of them outside of the image."""
    value = torch.rand(1, count, 2) * 2.4 - 1.2
    return Keypoints(value, torch.eye(2) + 0.3 * torch.randn(1, count, 2, 2))


def deformation(size: tuple[int, int], geometry: str, furthest: float) -> Tensor:
    """A deformation with everything in it: a third smooth, a third rough, a third far outside."""
    grid = make_grid(*size, geometry)[None].nan_to_num()
    which = torch.randint(3, (1, *size, 1))
    far = furthest ** torch.rand(1, *size, 2) * torch.randn(1, *size, 2).sign()
    rough = grid + 0.4 * torch.randn_like(grid)
    return torch.where(which == 0, grid + 0.02, torch.where(which == 1, rough, far))


def placed(points: Keypoints, device: str) -> Keypoints:
    return Keypoints(points.value.to(device), points.jacobian.to(device))


def warps(kernels: Kernels, device: str) -> Iterator[Case]:
    """The kernel on ``device``, torch always on the CPU."""
    for geometry in GEOMETRIES:
        for (channels, *size), map_size in WARPS:
            feature = torch.randn(1, channels, *size)
            # What is resized mixes neighbours, and a mixture of huge numbers has no digits left.
            where = deformation(map_size, geometry, 1e12 if map_size == (*size,) else 5.0)
            occlusion = torch.rand(1, 1, *map_size)
            for dtype, layout in (
                (torch.float32, LINEAR), (torch.float16, LINEAR), (torch.float16, HWC8),
            ):  # fmt: skip
                given = feature.to(dtype)
                inputs = [t.to(device) for t in (given, where, occlusion)]
                found = host_kernels.warp_occlude(kernels, *inputs, geometry, layout).cpu()
                # Without the rounding in between that torch's half has.
                wanted = operators.warp_occlude(given.float(), where, occlusion, geometry)
                words = "HWC8" if layout == HWC8 else "linear"
                yield Case("WarpOcclude", str(dtype)[6:], words, found, wanted)


def motions(kernels: Kernels, device: str) -> Iterator[Case]:
    for geometry in GEOMETRIES:
        for count, channels, *size in MOTIONS:
            source, driving = keypoints(count), keypoints(count)
            points = placed(source, device), placed(driving, device)
            small = torch.rand(1, channels, *size)
            logits = 5 * torch.randn(1, count + 1, *size)
            for dtype in DTYPES:
                one, many = small.to(dtype), logits.to(dtype)
                found = host_kernels.sparse_motion(
                    kernels, one.to(device), *points, 0.01, geometry
                ).cpu()
                wanted = motion_operators.sparse_motion(
                    one.float(), source, driving, 0.01, geometry
                )
                yield Case("SparseMotion", str(dtype)[6:], "linear", found, wanted)
                found = host_kernels.compose_motion(
                    kernels, many.to(device), *points, geometry
                ).cpu()
                wanted = motion_operators.compose_motion(many, source, driving, geometry)
                yield Case("ComposeMotion", str(dtype)[6:], "linear", found, wanted)


def difference(case: Case) -> float:
    """The largest |found - wanted| / max(1, |wanted|); what is NaN in both does not count."""
    found, wanted = case.found.float(), case.wanted
    apart = (found - wanted).abs() / wanted.abs().clamp(min=1)
    apart[found.isnan() & wanted.isnan()] = 0
    return float(apart.max())


def table(kernels: Kernels, device: str = "cpu") -> dict[tuple[str, str, str], tuple[int, float]]:
    """Number of cases and the largest difference by (op, dtype, layout)."""
    torch.manual_seed(0)
    rows: dict[tuple[str, str, str], tuple[int, float]] = {}
    for cases in (warps(kernels, device), motions(kernels, device)):
        for case in cases:
            key = (case.op, case.dtype, case.layout)
            count, worst = rows.get(key, (0, 0.0))
            rows[key] = (count + 1, max(worst, difference(case)))
    return rows


def page(cxx: str) -> str:
    """The table, for docs/results."""
    with tempfile.TemporaryDirectory() as folder:
        host, fused, emulated = (
            table(host_kernels.build(cxx, Path(folder), kind))
            for kind in ("host", "fused", "emulated")
        )
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=True)
    lines = [
        "# The kernels' arithmetic against torch",
        "",
        "    python tests/kernel_cases.py docs/results/kernels.md",
        "",
        "Made on a CPU; the tests hold the same figures below their limits. Host: the kernels'",
        "templates in plain loops. Fused: the same with fused multiply-adds, as nvcc makes them.",
        "Emulated: the CUDA kernels and their launch functions as they are, block by block on the",
        "CPU. All are compiled by",
        f"{version.stdout.splitlines()[0]}; the reference is torch {torch.__version__} in float32",
        "(`export.operators`). No figure here comes from a GPU.",
        "",
        "Cases: both geometries, the nodes of the presets at 256 x 256 and odd sizes, 1 to 70",
        "keypoints, coordinates smooth, rough and far outside (up to 1e12).",
        "Difference: the largest |kernel - torch| / max(1, |torch|); half an ulp of float16 is",
        "4.9e-4 of the value at most.",
        "",
        "| operator | dtype | layout | cases | host | fused | emulated | limit |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for key, (count, worst) in host.items():
        others = f"{fused[key][1]:.1e} | {emulated[key][1]:.1e}"
        columns = f"{worst:.1e} | {others} | {limit(*key[:2]):.1e}"
        lines.append(f"| {' | '.join(key)} | {count} | {columns} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    cxx = compiler()
    if cxx is None:
        raise SystemExit("error: no C++ compiler was found\nhint: install one, or name it: CXX=...")
    if not host_kernels.can_fuse():
        raise SystemExit("error: this processor has no fused multiply-add\nhint: use another")
    text = page(cxx)
    print(text, end="")
    if arguments:
        Path(arguments[0]).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
