"""Compiling the kernels on a machine that lacks something: the errors say what."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sonomime.benchmarks.gpu.kernels import Kernels
from sonomime.runtime.support.errors import BackendError


def put_nvcc(folder: Path, says: str) -> Path:
    """A compiler that fails, having said so."""
    tool = folder / "bin" / "nvcc"
    tool.parent.mkdir(parents=True)
    tool.write_text(f"#!/bin/sh\ncat >&2 <<'SAID'\n{says}\nSAID\nexit 1\n")
    tool.chmod(0o755)
    return tool


@pytest.mark.parametrize(
    ("says", "cause"),
    [
        (
            "In file included from cuda_runtime.h:82,\n                 from launch.cu:2:\n"
            "host_config.h:143:2: error: #error -- unsupported GNU version!\n  143 | #error",
            "host_config.h:143:2: error: #error -- unsupported GNU version!;   143 | #error",
        ),
        ("Killed", "Killed"),
        ("", "it does not say why"),
    ],
)
@pytest.mark.parametrize("variable", ["PATH", "CUDA_HOME", "CUDA_PATH"])
def test_nvcc_is_found_and_its_complaint_is_the_cause(
    variable: str, says: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(each, raising=False)
    tool = put_nvcc(tmp_path, says)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    place = f"{tool.parent}:/usr/bin:/bin" if variable == "PATH" else str(tmp_path)
    monkeypatch.setenv(variable, place)
    with pytest.raises(BackendError) as caught:
        Kernels.build(tmp_path)
    assert caught.value.message.endswith(f": {cause}") and str(tool) in caught.value.hint


def test_a_library_that_cannot_be_loaded_or_refuses(tmp_path: Path, kernels: Kernels) -> None:
    library = tmp_path / "libsonomime_cuda.so"
    library.write_bytes(b"not a library at all")
    with pytest.raises(BackendError, match="libsonomime_cuda"):
        Kernels(library)
    maps = torch.zeros(1, 4, 4, 2), torch.ones(1, 1, 4, 4)
    with pytest.raises(BackendError, match="sonomime_warp_occlude failed with CUDA error 1"):
        kernels.warp_occlude(torch.zeros(1, 0, 4, 4), *maps, "half_pixel")
