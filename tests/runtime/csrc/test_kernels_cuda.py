"""The CUDA kernels: that nvcc takes them, and, where there is a GPU, that they compute."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import host_kernels
import kernel_cases
import pytest
import torch
from composed_cases import LEVELS, smooth_layers, speckle
from host_kernels import INVALID_VALUE, ROOT, compiler, run

from sonomime.benchmarks.gpu.kernels import SIGNATURES, Kernels
from sonomime.runtime.compose import Composer, enlarge
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.media.pixels import levels_apart

pytestmark = pytest.mark.slow

NO_DRIVER, NO_DEVICE = 35, 100  # cudaErrorInsufficientDriver, cudaErrorNoDevice


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """The target `kernels`, for this machine's GPU or else for all architectures."""
    options = ["-DTENSORRT_ROOT="]
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        options.append(f"-DCMAKE_CUDA_ARCHITECTURES={major}{minor}")
    return Kernels(host_kernels.cmake(tmp_path_factory.mktemp("build"), "kernels", *options))


def test_they_compile_refuse_what_makes_no_sense_and_export_nothing_else(kernels: Kernels) -> None:
    f = torch.zeros(64).data_ptr()
    warp = [f, f, f, f, 0, 4, 4, 4, 4, 4, 4, 1, 0, 0, None]
    assert kernels.library.sonomime_warp_occlude(*warp) == INVALID_VALUE
    assert host_kernels.exported(kernels.library._name) == set(SIGNATURES)


def test_without_a_gpu_cudas_error_comes_back_as_it_is(
    kernels: Kernels, run_python: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In a process that sees none, whether there is one or not."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    code = """
import ctypes, sys

library = ctypes.CDLL(sys.argv[1])
nowhere = [ctypes.c_void_p(256)] * 4
print(library.sonomime_warp_occlude(*nowhere, 1, 4, 4, 4, 4, 4, 4, 1, 0, 0, None))
"""
    status, output, errors = run_python(code, kernels.library._name)
    assert status == 0, errors
    assert int(output) in (NO_DEVICE, NO_DRIVER)


def test_headers_are_found_where_debian_and_jetson_have_them(tmp_path: Path) -> None:
    """In include/<architecture>."""
    architecture = sysconfig.get_config_var("MULTIARCH")
    if shutil.which("cmake") is None or not compiler() or not architecture:
        pytest.skip("cmake, a C++ compiler or Debian's folders are missing")
    headers = tmp_path / "include" / architecture
    headers.mkdir(parents=True)
    (headers / "NvInferRuntime.h").touch()
    options = [f"-DCMAKE_PREFIX_PATH={tmp_path}", "-DTENSORRT_ROOT="]
    options.append("-DCMAKE_CUDA_COMPILER=NOTFOUND")
    said = run("cmake", "-S", ROOT, "-B", tmp_path / "build", *options)
    assert "Missing: a CUDA compiler." in said.stdout


@pytest.fixture
def gpu() -> str:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return "cuda"


@pytest.mark.gpu
def test_they_are_as_close_to_torch_on_a_gpu(kernels: Kernels, gpu: str) -> None:
    rows = list(kernel_cases.differences(kernels, gpu))
    assert [row for row in rows if row[1] > row[2]] == []


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(("width", "height"), [(256, 256), (800, 600), (201, 333), (1920, 1080)])
def test_frames_composed_on_a_gpu_are_opencv_s(
    kernels: Kernels, gpu: str, width: int, height: int, channels: tuple[int, ...]
) -> None:
    picture, box = speckle(width, height, *channels), Letterbox.fit(width, height, 256)
    layers = smooth_layers(64, 64, 3 if channels else 1)
    source = enlarge(picture, box, (width, height))
    found = host_kernels.compose_frame(kernels, source, layers, gpu)
    assert levels_apart(found, Composer(picture, box, source.size).compose(*layers)) <= LEVELS


@pytest.mark.gpu
def test_they_can_be_captured_in_a_graph(kernels: Kernels, gpu: str) -> None:
    feature = torch.randn(1, 16, 32, 32, device=gpu)
    where = torch.rand(1, 16, 16, 2, device=gpu) * 2 - 1
    occlusion = torch.rand(1, 1, 16, 16, device=gpu)
    # Once before: a kernel is loaded at its first launch.
    host_kernels.warp_occlude(kernels, feature, where, occlusion, "half_pixel")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = host_kernels.warp_occlude(kernels, feature, where, occlusion, "half_pixel")
    graph.replay()
    first = found.clone()
    feature.mul_(2)
    graph.replay()
    torch.testing.assert_close(found, 2 * first)
