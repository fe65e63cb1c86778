"""The kernels (runtime/csrc) compiled on the spot and called with torch's tensors; how long they
take beside torch, and how close they come to the memory's bandwidth.

nvcc compiles them; TensorRT is not needed. Launches go to torch's current stream, so they can be
timed and captured like torch's own. Tests compile them for the CPU.

The three operators mostly read and write memory, so bytes over time, relative to a plain copy on
the same device, shows how good a kernel is. One frame's tensors fit into a large GPU's cache:
`microseconds` is with tensors that were just used, as within a frame; `microseconds_from_memory`
goes round more buffers than the cache holds. tests/runtime/csrc tests that the kernels are right.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ctypes import c_float, c_int, c_void_p
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime.backends import device_composer
from ...runtime.support.errors import BackendError
from ...training.models import operators
from ...training.models.geometry import make_grid
from ...training.models.keypoints import motion as keypoint_motion
from ...training.models.keypoints.motion import Keypoints
from ..measure import seconds_of
from .child import Row

LIBRARY = "libsonomime_cuda.so"
SOURCES = Path(__file__).resolve().parents[2] / "runtime" / "csrc"
DTYPES = {torch.float32: 0, torch.float16: 1}
LINEAR, HWC8 = 0, 1
EIGHT = 8
KEYPOINTS, VARIANCE = 12, 0.01  # of what is timed
Call = Callable[[], Tensor]

HOMES = {
    "warp_occlude": operators,
    "sparse_motion": keypoint_motion,
    "compose_motion": keypoint_motion,
}
"""The modules that have torch's version of the three operators."""

# Types of the arguments, as sonomime_kernels.h declares them.
SIGNATURES = {
    "sonomime_warp_occlude": [c_void_p] * 4 + [c_int] * 11 + [c_void_p],
    "sonomime_sparse_motion": [c_void_p] * 6 + [c_int] * 4 + [c_float, c_int, c_int, c_void_p],
    "sonomime_compose_motion": [c_void_p] * 6 + [c_int] * 4 + [c_void_p],
    device_composer.FUNCTION: device_composer.SIGNATURE,
}


def flags(geometry: str) -> tuple[bool, bool]:
    """The arguments `half_pixel` and `align_corners`."""
    return geometry == "half_pixel", geometry == "fomm_aligned"


def build_command(library: Path) -> list[str]:
    """The command that compiles the kernels into a shared library.

    Raises:
        BackendError: there is no sources folder, or no nvcc.
    """
    if not SOURCES.is_dir():
        raise BackendError(
            f"the kernels' sources are not in {SOURCES}", "run it from a checkout of the repository"
        )
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    folders = os.pathsep.join(f"{home}/bin" for home in homes if home)
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=folders)
    if nvcc is None:
        raise BackendError("there is no nvcc", "install the CUDA toolkit and put nvcc on the PATH")
    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (8, 0)
    target = f"arch=compute_{major}{minor},code=sm_{major}{minor}"
    options = ["-O3", "-gencode", target, "-cudart", "static", "-Xcompiler", "-fPIC", "-shared"]
    return [nvcc, *options, "-std=c++17", "-o", str(library), str(SOURCES / "launch.cu")]


class Kernels:
    """The three operators, each as its namesake of training/models computes it."""

    def __init__(self, library: Path) -> None:
        """Load a library made by `build` or by CMake's target `kernels`.

        Raises:
            BackendError: it cannot be loaded.
        """
        try:
            self.library = ctypes.CDLL(str(library))
        except OSError as error:
            raise BackendError(
                f"{library} cannot be loaded: {error}", "compile it on this machine"
            ) from error
        for name, types in SIGNATURES.items():
            getattr(self.library, name).argtypes = types

    @classmethod
    def build(cls, folder: Path) -> Self:
        """Compile into `folder`, unless that is done, and load.

        Raises:
            BackendError: no compiler, or it refuses the sources.
        """
        library = folder / LIBRARY
        if library.is_file():
            return cls(library)
        unfinished = library.with_suffix(".part.so")
        command = build_command(unfinished)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BackendError(
                f"{Path(command[0]).name} cannot compile the kernels: {_cause(done.stderr)}",
                "run it by hand: " + " ".join(command),
            )
        unfinished.rename(library)
        return cls(library)

    def warp_occlude(
        self,
        feature: Tensor,
        deformation: Tensor,
        occlusion: Tensor,
        geometry: str,
        out: Any = None,
    ) -> Tensor:
        """(1, C, H, W), (1, h, w, 2), (1, 1, h', w') -> as feature. A half feature whose channels
        come last, in eights, is read and written 16 bytes at a time."""
        last = feature.is_contiguous(memory_format=torch.channels_last)
        eights = last and not feature.is_contiguous() and feature.shape[1] % EIGHT == 0
        eights = eights and feature.dtype == torch.float16
        given = feature if eights else feature.contiguous()
        result = torch.empty_like(given) if out is None else out
        self._call(
            "sonomime_warp_occlude", given.device, given, deformation.contiguous(),
            occlusion.contiguous(), result, *feature.shape[1:], *deformation.shape[1:3],
            *occlusion.shape[2:], *flags(geometry), DTYPES[given.dtype],
            HWC8 if eights else LINEAR,
        )  # fmt: skip
        return result

    def sparse_motion(
        self, small: Tensor, source: Keypoints, driving: Keypoints, variance: float, geometry: str,
        out: Any = None,
    ) -> Tensor:  # fmt: skip
        """Float32 (1, C, h, w) and keypoints -> (1, (K + 1)(C + 1), h, w)."""
        count, (channels, height, width) = source.value.shape[1], small.shape[1:]
        if out is None:
            out = small.new_empty((1, (count + 1) * (channels + 1), height, width))
        given = [tensor.contiguous() for tensor in (small, *source, *driving)]
        sizes = channels, height, width, count, variance, *flags(geometry)
        self._call("sonomime_sparse_motion", out.device, *given, out, *sizes)
        return out

    def compose_motion(
        self, logits: Tensor, source: Keypoints, driving: Keypoints, geometry: str, out: Any = None
    ) -> Tensor:
        """Float32 (1, K + 1, h, w) and keypoints -> (1, h, w, 2)."""
        height, width = logits.shape[-2:]
        out = logits.new_empty((1, height, width, 2)) if out is None else out
        given = [tensor.contiguous() for tensor in (logits, *source, *driving)]
        sizes = height, width, source.value.shape[1], geometry == "half_pixel"
        self._call("sonomime_compose_motion", out.device, *given, out, *sizes)
        return out

    def _call(self, name: str, device: torch.device, *arguments: Tensor | float) -> None:
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        if "motion" in name and any(t.dtype != torch.float32 for t in tensors):
            raise BackendError(f"{name} takes float32 tensors alone")
        given = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
        gpu = device.type == "cuda"
        stream = torch.cuda.current_stream(device).cuda_stream if gpu else None
        # A launch on another device's stream than the current one's would fail.
        with torch.cuda.device(device if gpu else -1):
            status = getattr(self.library, name)(*given, stream)
        if status:
            raise BackendError(
                f"{name} failed with CUDA error {status}",
                "it may be earlier work's error: CUDA_LAUNCH_BLOCKING=1 shows it where it happens",
            )

    @contextmanager
    def in_the_stages(self) -> Iterator[None]:
        """Within it, stages compute with these kernels, as with the plugin."""
        with ExitStack() as stack:
            for name, home in HOMES.items():
                stack.callback(setattr, home, name, getattr(home, name))
                setattr(home, name, getattr(self, name))
            yield


def _cause(said: str) -> str:
    """A compiler's error in one line, without the list of included files."""
    lines = said.strip().splitlines() or ["it does not say why"]
    telling = [line for line in lines if re.search("error|fatal|cannot|no such file", line, re.I)]
    return "; ".join((telling or lines)[:2])


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
