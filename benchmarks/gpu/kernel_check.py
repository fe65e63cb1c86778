"""The kernels beside torch: how far off, how long, and at what share of the memory's bandwidth.

The three operators read and write memory and compute next to nothing, so bytes over time, relative
to what a plain copy reaches on the same device, says how good a kernel is. A frame's tensors fit
into a large GPU's cache: `microseconds` is with tensors just used, as within a frame, and
`microseconds_from_memory` goes round more buffers than the cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...training.models.geometry import make_grid
from ...training.models.keypoints.keypoint_detector import Keypoints
from .clock import median_seconds
from .kernels import HOMES, Kernels
from .rows import Row, said, table

KEYPOINTS, VARIANCE = 12, 0.01
# Of the largest value: coordinates of float32 differ in their last bits; half has 11 bits.
TOLERANCE = {torch.float32: 2e-4, torch.float16: 2e-3}


@dataclass(frozen=True)
class Case:
    """An operator on tensors of one size: of a preset, or small."""

    op: str
    dtype: torch.dtype
    shape: tuple[int, int, int]  # C, H, W of what is warped; h, w of the maps for compose
    last: bool = False  # channels last

    @property
    def name(self) -> str:
        layout = " channels last" if self.last else ""
        size = "x".join(map(str, self.shape))
        return f"{self.op} {size} {str(self.dtype).removeprefix('torch.')}{layout}"


def cases(small: bool = False) -> list[Case]:
    """What the presets have at 256 x 256; `small`: sizes for a test."""
    single, half = torch.float32, torch.float16
    if small:
        return [
            Case("warp_occlude", single, (3, 20, 24)),
            Case("warp_occlude", half, (8, 20, 24)),
            Case("warp_occlude", half, (8, 20, 24), last=True),
            Case("sparse_motion", single, (1, 16, 16)),
            Case("compose_motion", single, (1, 16, 16)),
        ]
    return [
        Case("warp_occlude", single, (256, 64, 64)),
        Case("warp_occlude", half, (256, 64, 64)),
        Case("warp_occlude", half, (256, 64, 64), last=True),
        Case("sparse_motion", single, (1, 64, 64)),
        Case("sparse_motion", single, (3, 64, 64)),
        Case("compose_motion", single, (1, 64, 64)),
    ]


Call = Callable[[], Tensor]


class Work(NamedTuple):
    """One case with its tensors: by the kernel, by torch, and the bytes that it has to move."""

    kernel: Call
    torch: Call
    bytes: int


def check_kernels(
    kernels: Kernels, device: torch.device, todo: Sequence[Case], repeats: int
) -> list[Row]:
    """A row of plain data per case; `agrees` says whether the error is within the tolerance. A case
    that cannot be run says why and stops no other."""
    rows = []
    for case in todo:
        row: Row = {"case": case.name}
        try:
            apart = max(_error(case, kernels, device, g) for g in ("half_pixel", "fomm"))
            row |= {
                "relative_error": apart,
                "tolerance": TOLERANCE[case.dtype],
                "agrees": apart <= TOLERANCE[case.dtype],
            }
            row |= _times(case, kernels, device, repeats)
        except Exception as error:  # torch's, CUDA's, ours
            row["failed"] = said(error)
        rows.append(row)
    return rows


def _times(case: Case, kernels: Kernels, device: torch.device, repeats: int) -> Row:
    copy = copy_bandwidth(device, 1 << (28 if device.type == "cuda" else 20))
    one = _work(case, kernels, device, "half_pixel", 0)
    row: Row = {
        "bytes": one.bytes,
        "microseconds": 1e6 * seconds_each([one.kernel], device, repeats),
        "torch_microseconds": 1e6 * seconds_each([one.torch], device, repeats),
        "copy_gb_per_second": copy / 1e9,
    }
    if device.type == "cuda":
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        rounds = 2 + 4 * cache // one.bytes
        many = [_work(case, kernels, device, "half_pixel", seed).kernel for seed in range(rounds)]
        seconds = seconds_each(many, device, repeats)
        row["microseconds_from_memory"] = 1e6 * seconds
        row["bandwidth_share"] = one.bytes / seconds / copy
    return row


def _work(
    case: Case, kernels: Kernels, place: torch.device, geometry: str, seed: int, rough: bool = False
) -> Work:
    """The same tensors for the same seed everywhere."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def points() -> Keypoints:
        eye = torch.eye(2) + 0.3 * normal(1, KEYPOINTS, 2, 2)
        return Keypoints((0.6 * normal(1, KEYPOINTS, 2)).to(place), eye.to(place))

    channels, height, width = case.shape
    given: tuple[Any, ...]
    if case.op == "warp_occlude":
        feature = normal(1, channels, height, width).to(place, case.dtype)
        if case.last:
            feature = feature.contiguous(memory_format=torch.channels_last)
        bend = F.interpolate(0.2 * normal(1, 2, 4, 4), (64, 64), mode="bilinear")
        smooth = make_grid(64, 64, geometry) + bend.permute(0, 2, 3, 1)
        where = 0.8 * normal(1, 64, 64, 2) if rough else smooth.contiguous()
        given = feature, where.to(place), normal(1, 1, 64, 64).sigmoid().to(place), geometry
        out = torch.empty_like(feature)
    else:
        source, driving = points(), points()
        if case.op == "sparse_motion":
            small = normal(1, channels, height, width).to(place, case.dtype)
            given = small, source, driving, VARIANCE, geometry
            out = small.new_empty((1, (KEYPOINTS + 1) * (channels + 1), height, width))
        else:
            logits = (3 * normal(1, KEYPOINTS + 1, height, width)).to(place, case.dtype)
            given = logits, source, driving, geometry
            out = logits.new_empty((1, height, width, 2), dtype=torch.float32)
    moved = [value for value in (*given, out) if isinstance(value, Tensor)]
    plain = partial(getattr(HOMES[case.op], case.op), *given)
    return Work(
        partial(getattr(kernels, case.op), *given, out),
        # Torch's answer is float32 here, and half of it is part of the work.
        (lambda: plain().to(case.dtype)) if case.op == "sparse_motion" else plain,
        sum(tensor.numel() * tensor.element_size() for tensor in moved),
    )


def _error(case: Case, kernels: Kernels, device: torch.device, geometry: str) -> float:
    found = _work(case, kernels, device, geometry, 1, rough=True).kernel().cpu().double()
    # On the CPU, whose float32 no setting of a machine turns into TF32.
    wanted = _work(case, kernels, torch.device("cpu"), geometry, 1, rough=True).torch().double()
    largest = wanted.abs().max().clamp(min=1.0)
    # JSON has no infinity.
    return float(((found - wanted).abs().max() / largest).nan_to_num(torch.finfo(torch.double).max))


def seconds_each(calls: Sequence[Call], device: torch.device, repeats: int) -> float:
    """Seconds of one call, launches left out on a GPU: the calls are captured and replayed."""

    def run(times: int = 1) -> None:
        for call in times * tuple(calls):
            call()

    run()
    if device.type != "cuda":
        return median_seconds(run, device, repeats) / len(calls)
    inner = max(1, 100 // len(calls))  # beside which starting the graph counts for little
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        run(inner)
    graph.replay()
    return median_seconds(graph.replay, device, repeats) / inner / len(calls)


@cache
def copy_bandwidth(device: torch.device, count: int) -> float:
    """Bytes read and written a second by a copy of `count` bytes: the driver's, which may take a
    copy engine, or a kernel's, whichever is quicker. Measured once, for shares of the same."""
    source = torch.rand(count // 4, device=device)
    target = torch.empty_like(source)
    copies = (lambda: target.copy_(source), lambda: torch.neg(source, out=target))
    return 2 * count / min(seconds_each([copy], device, 10) for copy in copies)


def kernel_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The rows for a person."""
    columns = {
        "error": ("9.1e", "relative_error"),
        "us": ("8.1f", "microseconds"),
        "torch": ("8.1f", "torch_microseconds"),
        "memory": ("8.1f", "microseconds_from_memory"),
        "share": ("7.0%", "bandwidth_share"),
    }
    return table(rows, "case", "kernel", 48, columns)
