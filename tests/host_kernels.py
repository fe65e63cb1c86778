"""The kernels (runtime/csrc), compiled, and called with torch tensors on the CPU or a GPU."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sonomime.benchmarks.gpu.kernels import DTYPES, HWC8, SOURCES, Kernels, flags
from sonomime.runtime.backends.base import EnlargedSource

ROOT = Path(__file__).resolve().parents[1]
INVALID_VALUE = 1  # cudaErrorInvalidValue

EMULATED = ("-isystem", str(ROOT / "tests/emulated_cuda"), "-x", "c++", str(SOURCES / "launch.cu"))
"""Options of a C++ compiler for the CUDA kernels."""

_FOLDER = tempfile.TemporaryDirectory(prefix="sonomime-kernels-")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """A command that has to succeed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


class Checked(Kernels):
    """Takes tensors of the CPU to the kernels' device, and the result back. Outputs are filled
    before, so that it shows where nothing was written."""

    def __init__(self, library: Path, device: str = "cpu") -> None:
        super().__init__(library)
        self.device = device

    def _call(self, name: str, device: torch.device, *arguments: Tensor | float) -> None:
        last = [i for i, given in enumerate(arguments) if isinstance(given, Tensor)][-1]
        given = [each.to(self.device) if isinstance(each, Tensor) else each for each in arguments]
        output = given[last]
        assert isinstance(output, Tensor)
        output.fill_(77)
        super()._call(name, output.device, *given)
        arguments[last].copy_(output)  # type: ignore[union-attr]

    def warp_in_eights(
        self, feature: Tensor, deformation: Tensor, occlusion: Tensor, geometry: str
    ) -> Tensor:
        """As `warp_occlude`, by the layout HWC8, NaN in the padding channels."""
        channels, height, width = feature.shape[1:]
        rows = feature[0].permute(1, 2, 0)
        given = torch.nn.functional.pad(rows, (0, -channels % 8), value=torch.nan).contiguous()
        output = torch.empty_like(given)
        self._call(
            "sonomime_warp_occlude", output.device, given, deformation, occlusion, output, channels,
            height, width, *deformation.shape[1:3], *occlusion.shape[2:], *flags(geometry),
            DTYPES[feature.dtype], HWC8,
        )  # fmt: skip
        assert not output[..., channels:].any(), "padding channels are not zeros"
        return output[..., :channels].permute(2, 0, 1)[None]

    def compose_frame(
        self, source: EnlargedSource, layers: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.uint8]:
        """As runtime.compose.Composer.compose."""
        box, (width, height), colours = source.box, source.size, source.picture.shape[2:]
        half, channels = box.size // 2, 3 if colours else 1
        arrays = (*layers, source.low, source.picture)
        given = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        base = given[0].new_full((half, half, channels), torch.nan)
        frame = given[-1].new_empty((height, width, *colours))
        self._call(
            "sonomime_compose_frame", frame.device, *given, base, frame, channels,
            *layers[0].shape[1:3], *(layer.shape[1] for layer in layers[2:]), box.size, box.x,
            box.y, box.w, box.h, height, width, source.above, source.left,
            *source.picture.shape[:2],
        )  # fmt: skip
        made: NDArray[np.uint8] = frame.numpy()
        return made


def compiler() -> str:
    """A C++ compiler: $CXX, or the usual names."""
    names = filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++"))
    found = next((path for path in map(shutil.which, names) if path), None)
    return found or pytest.skip("no C++ compiler was found")


@functools.cache
def built() -> Checked:
    """The CUDA kernels and their launch functions, compiled for the CPU once per process; they run
    block by block. Warnings are errors; with fused multiply-adds, as on a GPU, where the processor
    has them."""
    library = Path(_FOLDER.name, "libsonomime_host.so")
    options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared"]
    facts = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and facts.exists() and " fma " in facts.read_text():
        options.append("-mfma")
    run(compiler(), *options, "-fPIC", "-ffp-contract=fast", "-o", library, *EMULATED)
    return Checked(library)
