"""How long the kernels take beside torch, and how close they come to the memory's bandwidth.

The three operators mostly read and write memory, so bytes over time, relative to a plain copy on
the same device, shows how good a kernel is. One frame's tensors fit into a large GPU's cache:
`microseconds` is with tensors that were just used, as within a frame; `microseconds_from_memory`
goes round more buffers than the cache holds. tests/runtime/csrc tests that the kernels are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...training.models.geometry import make_grid
from ...training.models.keypoints.keypoint_detector import Keypoints
from ..measure import seconds_of
from .child import Row
from .kernels import HOMES, Kernels

KEYPOINTS, VARIANCE = 12, 0.01
Call = Callable[[], Tensor]


class Case(NamedTuple):
    """An operator on tensors of one size; the defaults are those of the presets at 256 x 256."""

    op: str
    dtype: torch.dtype = torch.float32
    channels: int = 1  # of what is warped or shrunk; compose_motion has none
    last: bool = False  # channels last
    side: int = 64

    @property
    def name(self) -> str:
        layout = " channels last" if self.last else ""
        return f"{self.op} {self.channels} {str(self.dtype).removeprefix('torch.')}{layout}"


CASES = (
    Case("warp_occlude", channels=256),
    Case("warp_occlude", torch.float16, channels=256),
    Case("warp_occlude", torch.float16, channels=256, last=True),
    Case("sparse_motion"),
    Case("sparse_motion", channels=3),
    Case("compose_motion"),
)


def time_kernel(kernels: Kernels, device: torch.device, case: Case, repeats: int) -> Row:
    """The row of one case; on a GPU also from memory, and the share of a copy's bandwidth."""
    kernel, plain, size = make_work(case, kernels, device)
    ours, torchs = (seconds_each([each], device, repeats) for each in (kernel, plain))
    row: Row = {"bytes": size, "microseconds": 1e6 * ours, "torch_microseconds": 1e6 * torchs}
    if device.type != "cuda":
        return row
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    rounds = range(2 + 4 * cache // size)
    many = [make_work(case, kernels, device, seed)[0] for seed in rounds]
    seconds = seconds_each(many, device, repeats)
    source = torch.rand(1 << 26, device=device)
    target = torch.empty_like(source)
    # The driver's copy may take a copy engine, the other one is a kernel's.
    copies = (lambda: target.copy_(source), lambda: torch.neg(source, out=target))
    copy = 2 * source.nbytes / min(seconds_each([each], device, 10) for each in copies)
    return row | {
        "microseconds_from_memory": 1e6 * seconds,
        "bandwidth_share": size / seconds / copy,
        "copy_gb_per_second": copy / 1e9,
    }


def make_work(
    case: Case, kernels: Kernels, device: torch.device, seed: int = 0
) -> tuple[Call, Call, int]:
    """A case by the kernel and by torch, on tensors whose motion is smooth, as in a frame; and the
    bytes that must be moved."""
    normal = partial(torch.randn, generator=torch.Generator().manual_seed(seed))

    def points() -> Keypoints:
        jacobian = torch.eye(2) + 0.3 * normal(1, KEYPOINTS, 2, 2)
        return Keypoints((0.6 * normal(1, KEYPOINTS, 2)).to(device), jacobian.to(device))

    side, geometry = case.side, "half_pixel"
    given: tuple[Any, ...]
    if case.op == "warp_occlude":
        feature = normal(1, case.channels, side, side).to(device, case.dtype)
        if case.last:
            feature = feature.contiguous(memory_format=torch.channels_last)
        bend = F.interpolate(0.2 * normal(1, 2, 4, 4), (side, side), mode="bilinear")
        where = (make_grid(side, side, geometry) + bend.permute(0, 2, 3, 1)).contiguous()
        occlusion = normal(1, 1, side, side).sigmoid()
        given = feature, where.to(device), occlusion.to(device), geometry
    elif case.op == "sparse_motion":
        small = normal(1, case.channels, side, side).to(device, case.dtype)
        given = small, points(), points(), VARIANCE, geometry
    else:
        logits = (3 * normal(1, KEYPOINTS + 1, side, side)).to(device, case.dtype)
        given = logits, points(), points(), geometry
    kernel = partial(getattr(kernels, case.op), *given)
    out = kernel()  # made once: a kernel is timed without allocation
    plain = partial(getattr(HOMES[case.op], case.op), *given)
    moved = [value for value in (*given, out) if isinstance(value, Tensor)]
    return partial(kernel, out), plain, sum(tensor.nbytes for tensor in moved)


def seconds_each(calls: Sequence[Call], device: torch.device, repeats: int) -> float:
    """Median seconds of one call. On a GPU the calls are captured and replayed, so that their
    launches do not count."""

    def run(times: int = 1) -> None:
        for call in times * tuple(calls):
            call()

    run()
    if device.type != "cuda":
        return median(seconds_of(run, repeats)) / len(calls)
    inner = max(1, 100 // len(calls))  # so that starting the graph counts for little
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        run(inner)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    spans = []
    for _ in range(repeats + 1):
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        spans.append(begin.elapsed_time(end) / 1e3)
    return median(spans[1:]) / inner / len(calls)
