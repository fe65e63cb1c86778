"""Compiling the kernels on a machine that lacks something: what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sonomime.benchmarks.gpu.kernels import Kernels, build_command, compiler
from sonomime.runtime.support.errors import BackendError


def put_nvcc(folder: Path, says: str) -> None:
    """A compiler that fails, having said so."""
    folder.mkdir(parents=True)
    tool = folder / "nvcc"
    tool.write_text(f"#!/bin/sh\ncat >&2 <<'SAID'\n{says}\nSAID\nexit 1\n")
    tool.chmod(0o755)


@pytest.mark.parametrize(
    ("says", "cause"),
    [
        (
            "In file included from cuda_runtime.h:82,\n                 from launch.cu:2:\n"
            "host_config.h:143:2: error: #error -- unsupported GNU version!\n  143 | #error",
            "host_config.h:143:2: error: #error -- unsupported GNU version!;   143 | #error",
        ),
        (
            "gcc: No such file or directory\nnvcc fatal   : Failed to preprocess host compiler",
            "gcc: No such file or directory; nvcc fatal   : Failed to preprocess host compiler",
        ),
        (
            "/usr/bin/ld: cannot find -lcudart_static: No such file or directory\n"
            "collect2: error: ld returned 1 exit status",
            "/usr/bin/ld: cannot find -lcudart_static: No such file or directory; "
            "collect2: error: ld returned 1 exit status",
        ),
        ("Killed", "Killed"),
        ("", "it does not say why"),
    ],
    ids=["compiler-too-new", "no-host-compiler", "no-static-runtime", "other-words", "no-words"],
)
def test_the_cause_is_named(
    says: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_nvcc(tmp_path / "bin", says)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(BackendError) as caught:
        Kernels.build("cuda", tmp_path)
    assert caught.value.message == f"nvcc cannot compile the kernels: {cause}"
    assert str(tmp_path / "bin" / "nvcc") in caught.value.hint


@pytest.mark.parametrize("name", ["CUDA_HOME", "CUDA_PATH"])
def test_nvcc_is_found_where_the_toolkit_is_said_to_be(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_nvcc(tmp_path / "bin", "")
    for each in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(name, str(tmp_path))
    assert build_command("cuda", tmp_path / "k.so")[0] == str(tmp_path / "bin" / "nvcc")


def test_a_library_of_another_machine(tmp_path: Path) -> None:
    library = tmp_path / "libsonomime_cuda.so"
    library.write_bytes(b"not a library at all")
    with pytest.raises(BackendError, match=r"libsonomime_cuda\.so cannot be loaded"):
        Kernels(library)


def test_a_status_that_is_no_success(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("there is no C++ compiler")
    kernels = Kernels.build("cpu", tmp_path)
    maps = torch.zeros(1, 4, 4, 2), torch.ones(1, 1, 4, 4)
    with pytest.raises(BackendError, match=r"sonomime_warp_occlude failed with CUDA error 1$"):
        kernels.warp_occlude(torch.zeros(1, 0, 4, 4), *maps, "half_pixel")
