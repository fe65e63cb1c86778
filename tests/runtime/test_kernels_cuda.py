"""The CUDA kernels: that nvcc takes them, and, where there is a GPU, that they compute."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import host_kernels
import kernel_cases
import pytest
import torch
from host_kernels import INVALID_VALUE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The target `kernels`, for this machine's GPU or else for all architectures."""
    for tool in ("nvcc", "cmake"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    build = tmp_path_factory.mktemp("build")
    options = [f"-DSONOMIME_LIBRARY_DIR={build}", "-DTENSORRT_ROOT="]
    if torch.cuda.is_available():
        options.append("-DCMAKE_CUDA_ARCHITECTURES=native")
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(build), *options],
        ["cmake", "--build", str(build), "--target", "kernels"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr.lower(), done.stderr
    return host_kernels.load(build / "libsonomime_kernels.so")


def test_they_compile_and_refuse_what_makes_no_sense(library: ctypes.CDLL) -> None:
    floats = torch.zeros(64)
    f = floats.data_ptr()
    warp = [f, f, f, f, 1, 4, 4, 4, 4, 4, 4, 1, 0, 0, None]
    assert library.sonomime_warp_occlude(*warp[:4], 0, *warp[5:]) == INVALID_VALUE
    assert library.sonomime_compose_motion(f, f, f, f, f, f, 4, 4, 0, 1, 0, None) == INVALID_VALUE
    if Path("/dev/nvidiactl").exists():
        pytest.skip("host memory must not be given to a GPU")
    # No device, or no driver: CUDA's error comes back as it is.
    assert library.sonomime_warp_occlude(*warp) not in (0, INVALID_VALUE)


def test_headers_are_found_where_debian_and_jetson_have_them(tmp_path: Path) -> None:
    """In include/<architecture>."""
    architecture = sysconfig.get_config_var("MULTIARCH")
    if shutil.which("cmake") is None or host_kernels.compiler() is None or not architecture:
        pytest.skip("cmake, a C++ compiler or Debian's folders are missing")
    headers = tmp_path / "include" / architecture
    headers.mkdir(parents=True)
    (headers / "NvInferRuntime.h").touch()
    options = [f"-DCMAKE_PREFIX_PATH={tmp_path}", "-DTENSORRT_ROOT="]
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), *options]
    command.append("-DCMAKE_CUDA_COMPILER=NOTFOUND")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Missing: a CUDA compiler." in done.stdout


def test_nothing_but_the_functions_is_exported(library: ctypes.CDLL) -> None:
    if os.name != "posix" or shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    command = ["nm", "-D", "--defined-only", library._name]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert {line.split()[-1] for line in listed if line} == set(host_kernels.SIGNATURES)


@pytest.mark.gpu
def test_the_table_of_errors_on_a_gpu(library: ctypes.CDLL) -> None:
    rows = kernel_cases.table(library, "cuda")
    for (op, dtype, layout), (_, worst) in rows.items():
        assert worst <= kernel_cases.limit(op, dtype), (op, dtype, layout, worst)


@pytest.mark.gpu
def test_they_can_be_captured_in_a_graph(library: ctypes.CDLL) -> None:
    feature = torch.randn(1, 16, 32, 32, device="cuda")
    where = torch.rand(1, 16, 16, 2, device="cuda") * 2 - 1
    occlusion = torch.rand(1, 1, 16, 16, device="cuda")
    # Once before: a kernel is loaded when it is first launched.
    host_kernels.warp_occlude(library, feature, where, occlusion, "half_pixel")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = host_kernels.warp_occlude(library, feature, where, occlusion, "half_pixel")
    graph.replay()
    first = found.clone()
    feature.mul_(2)
    graph.replay()
    torch.testing.assert_close(found, 2 * first)
