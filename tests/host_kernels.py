"""The kernels (runtime/csrc), compiled, and called with torch tensors on the CPU or a GPU."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from ctypes import c_float, c_int, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from sonomime.training.models.keypoint_detector import Keypoints

SOURCES = Path(__file__).resolve().parents[1] / "runtime" / "csrc"
INVALID_VALUE = 1  # cudaErrorInvalidValue
LINEAR, HWC8 = 0, 1
DTYPES = {torch.float32: 0, torch.float16: 1}

# Types of the arguments, as sonomime_kernels.h declares them.
SIGNATURES = {
    "sonomime_warp_occlude": [c_void_p] * 4 + [c_int] * 10 + [c_void_p],
    "sonomime_sparse_motion": [c_void_p] * 6 + [c_int] * 4 + [c_float] + [c_int] * 2 + [c_void_p],
    "sonomime_compose_motion": [c_void_p] * 6 + [c_int] * 5 + [c_void_p],
}


def compiler() -> str | None:
    """A C++ compiler, or None: $CXX, or the usual names."""
    names = filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++"))
    return next((path for path in map(shutil.which, names) if path), None)


def can_fuse() -> bool:
    """Can this processor multiply and add in one rounding?"""
    facts = Path("/proc/cpuinfo")
    return platform.machine() in ("aarch64", "arm64") or (
        platform.machine() == "x86_64" and facts.exists() and " fma " in facts.read_text()
    )


def build(cxx: str, folder: Path, kind: str = "host") -> ctypes.CDLL:
    """Compile the host library into ``folder`` and load it; warnings are errors.

    ``fused``: with fused multiply-adds, as on a GPU. ``emulated``: the CUDA kernels and their
    launch functions instead, block by block on the CPU.
    """
    library = folder / f"libsonomime_{kind}.so"
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
    source = [str(SOURCES / "host.cpp")]
    if kind == "fused":
        source += ["-ffp-contract=fast", *(["-mfma"] if platform.machine() == "x86_64" else [])]
    if kind == "emulated":
        headers = str(Path(__file__).parent / "emulated_cuda")
        source = ["-isystem", headers, "-x", "c++", str(SOURCES / "launch.cu")]
    command = [cxx, "-std=c++17", "-O2", *warnings, "-shared", "-fPIC", "-o", str(library), *source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stderr}")
    return load(library)


def load(library: Path) -> ctypes.CDLL:
    """Load a library of the kernels and declare its functions."""
    loaded = ctypes.CDLL(str(library))
    for name, types in SIGNATURES.items():
        getattr(loaded, name).argtypes = types
    return loaded


def stream_of(tensor: Tensor) -> int | None:
    """The CUDA stream that torch works on, for a tensor on a GPU."""
    return torch.cuda.current_stream().cuda_stream if tensor.is_cuda else None


def to_hwc8(feature: Tensor, padding: float = 0.0) -> Tensor:
    """(1, C, H, W) -> (H, W, C rounded up to 8), padded with ``padding``."""
    channels = feature.shape[1]
    wider = torch.nn.functional.pad(feature[0].permute(1, 2, 0), (0, -channels % 8), value=padding)
    return wider.contiguous()


def warp_occlude(
    library: ctypes.CDLL,
    feature: Tensor,
    deformation: Tensor,
    occlusion: Tensor,
    geometry: str,
    layout: int = LINEAR,
) -> Tensor:
    """As export.operators.warp_occlude; with HWC8 the feature is (H, W, C8) of as many channels."""
    given = [t.contiguous() for t in (feature, deformation, occlusion)]
    # What the kernel leaves out stays conspicuous.
    output = torch.full_like(given[0], 77)
    channels, height, width = feature.shape[1:]
    if layout == HWC8:
        given[0] = to_hwc8(feature, padding=float("nan"))
        output = torch.full_like(given[0], 77)
    status = library.sonomime_warp_occlude(
        *(t.data_ptr() for t in (*given, output)), channels, height, width,
        *deformation.shape[1:3], *occlusion.shape[2:], geometry == "half_pixel",
        DTYPES[feature.dtype], layout, stream_of(feature),
    )  # fmt: skip
    assert status == 0
    if layout == LINEAR:
        return output
    assert not output[..., channels:].any(), "padding channels are not zeros"
    return output[..., :channels].permute(2, 0, 1)[None]


def sparse_motion(
    library: ctypes.CDLL,
    source_small: Tensor,
    source: Keypoints,
    driving: Keypoints,
    variance: float,
    geometry: str,
) -> Tensor:
    """As export.operators.sparse_motion; the result is of the dtype of ``source_small``."""
    given = [t.contiguous() for t in (source_small, *source, *driving)]
    channels, height, width = source_small.shape[1:]
    count = source.value.shape[1]
    shape = (1, (count + 1) * (channels + 1), height, width)
    output = torch.full(shape, 77, dtype=source_small.dtype, device=source_small.device)
    status = library.sonomime_sparse_motion(
        *(t.data_ptr() for t in (*given, output)), channels, height, width, count, variance,
        geometry == "half_pixel", DTYPES[source_small.dtype], stream_of(source_small),
    )  # fmt: skip
    assert status == 0
    return output


def compose_motion(
    library: ctypes.CDLL, mask_logits: Tensor, source: Keypoints, driving: Keypoints, geometry: str
) -> Tensor:
    """As export.operators.compose_motion."""
    given = [t.contiguous() for t in (mask_logits, *source, *driving)]
    height, width = mask_logits.shape[-2:]
    output = torch.full((1, height, width, 2), 77.0, device=mask_logits.device)
    status = library.sonomime_compose_motion(
        *(t.data_ptr() for t in (*given, output)), height, width, source.value.shape[1],
        geometry == "half_pixel", DTYPES[mask_logits.dtype], stream_of(mask_logits),
    )  # fmt: skip
    assert status == 0
    return output
