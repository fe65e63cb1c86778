"""The libraries as nvcc makes them: what they need and export. What concerns the plugin needs
TensorRT's headers: TENSORRT_ROOT."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import host_kernels
import plugin_creators
import pytest
import torch
from host_kernels import INVALID_VALUE, ROOT, compiler, run

from sonomime.benchmarks.gpu.kernels import SIGNATURES, SOURCES, Kernels
from sonomime.runtime.support.errors import BackendError
from sonomime.training.models.operators import VERSION

NO_DRIVER, NO_DEVICE = 35, 100  # cudaErrorInsufficientDriver, cudaErrorNoDevice


def folder_with(header: str, *folders: Path) -> Path | None:
    return next((folder for folder in folders if (folder / header).exists()), None)


def tensorrt_headers() -> Path | None:
    system = Path("/usr/include")
    root = Path(os.environ.get("TENSORRT_ROOT", system))
    return folder_with("NvInferRuntime.h", root / "include", system, *system.glob("*-linux-gnu"))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all that CMake makes here, for this machine's GPU, or for the oldest that it is
    meant for, with its PTX."""
    for tool in ("nvcc", "cmake", "nm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("build")
    there = torch.cuda.is_available()
    target = "{}{}".format(*torch.cuda.get_device_capability()) if there else "80"
    options = [f"-DSONOMIME_LIBRARY_DIR={folder}", f"-DCMAKE_CUDA_ARCHITECTURES={target}"]
    options.append(f"-DNVINFER_INCLUDE_DIR={tensorrt_headers() or ''}")
    run("cmake", "-S", ROOT, "-B", folder, *options)
    assert "warning" not in run("cmake", "--build", folder).stderr.lower()
    return folder


@pytest.fixture(scope="module")
def compiled(libraries: Path) -> Kernels:
    return Kernels(libraries / "libsonomime_kernels.so")


@pytest.fixture(scope="module")
def plugin(libraries: Path) -> Path:
    library = libraries / "libsonomime_plugin.so"
    return library if library.exists() else pytest.skip("NvInferRuntime.h was not found")


def exported(library: Path) -> set[str]:
    listed = run("nm", "-D", "--defined-only", library).stdout.splitlines()
    return {line.split()[-1] for line in listed if line}


@pytest.mark.slow
def test_the_kernels_refuse_what_makes_no_sense_and_pass_on_cudas_errors(
    libraries: Path, compiled: Kernels, run_python: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    f = torch.zeros(64).data_ptr()
    warp = [f, f, f, f, 0, 4, 4, 4, 4, 4, 4, 1, 0, 0, 0, None]
    assert compiled.library.sonomime_warp_occlude(*warp) == INVALID_VALUE
    assert exported(libraries / "libsonomime_kernels.so") == set(SIGNATURES)
    # In a process that sees no GPU, whether there is one or not.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    code = """
import ctypes, sys

library = ctypes.CDLL(sys.argv[1])
nowhere = [ctypes.c_void_p(256)] * 4
print(library.sonomime_warp_occlude(*nowhere, 1, 4, 4, 4, 4, 4, 4, 1, 0, 0, 0, None))
"""
    status, output, errors = run_python(code, compiled.library._name)
    assert status == 0, errors
    assert int(output) in (NO_DEVICE, NO_DRIVER)


@pytest.mark.slow
def test_the_plugin_needs_no_tensorrt_library(plugin: Path) -> None:
    if shutil.which("ldd") is None:
        pytest.skip("ldd is not installed")
    needed = run("ldd", plugin).stdout
    assert not any(name in needed for name in ("nvinfer", "cudart", "not found"))
    assert exported(plugin) == {"getCreators", "setLoggerFinder", *SIGNATURES}


@pytest.mark.slow
def test_tensorrt_finds_the_plugin_s_creators(plugin: Path) -> None:
    if not any(importlib.util.find_spec(name) for name in plugin_creators.MODULES):
        pytest.skip("neither tensorrt nor a lean runtime is installed")
    said = run(sys.executable, ROOT / "tests" / "plugin_creators.py", plugin).stdout
    assert all(f"sonomime::{name} version {VERSION}" in said for name in plugin_creators.NAMES)


@pytest.mark.slow
def test_what_tensorrt_asks_the_plugin_is_answered(tmp_path: Path) -> None:
    """Creation, serialisation, shapes, types, formats, refusals; enqueue on the CPU."""
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    homes += sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    cuda = folder_with("cuda_runtime_api.h", *(home / "include" for home in homes))
    tensorrt = tensorrt_headers()
    if cuda is None or tensorrt is None:
        pytest.skip("NvInferRuntime.h or cuda_runtime_api.h was not found")
    driver = tmp_path / "driver"
    sources = [ROOT / "tests" / "plugin_driver.cpp", SOURCES / "plugin.cpp"]
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", driver, *host_kernels.EMULATED]
    options += ["-x", "none", "-isystem", tensorrt, "-isystem", cuda]
    run(compiler(), *options, *sources)
    done = run(driver)
    assert done.stdout == "all checks hold\n"
    for said in (
        "WarpOcclude: the feature is not (1, C, H, W)",
        "WarpOcclude: CUDA error 1;",
        "WarpOcclude n: half_pixel or align_corners is missing, or neither 0.0 nor 1.0",
        "SparseMotion n: variance is missing, or not above 0 and finite",
        "SparseMotion: the first input has to be float32, all others float32",
    ):
        assert f"sonomime plugin: {said}" in done.stderr


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("variable", "says", "cause"),
    [
        (
            "PATH",
            "In file included from cuda_runtime.h:82,\n                 from launch.cu:2:\n"
            "host_config.h:143:2: error: #error -- unsupported GNU version!\n  143 | #error",
            "host_config.h:143:2: error: #error -- unsupported GNU version!;   143 | #error",
        ),
        ("CUDA_HOME", "Killed", "Killed"),
        ("CUDA_PATH", "", "it does not say why"),
    ],
)
def test_nvcc_is_found_and_its_complaint_is_the_cause(
    variable: str, says: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "nvcc"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat >&2 <<'SAID'\n{says}\nSAID\nexit 1\n")
    tool.chmod(0o755)
    for each in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(each, raising=False)
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


@pytest.mark.gpu
def test_they_can_be_captured_in_a_graph(compiled: Kernels) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    feature = torch.randn(1, 16, 32, 32, device="cuda")
    where = torch.rand(1, 16, 16, 2, device="cuda") * 2 - 1
    given = (feature, where, torch.rand(1, 1, 16, 16, device="cuda"), "half_pixel")
    compiled.warp_occlude(*given)  # once before: a kernel is loaded at its first launch
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = compiled.warp_occlude(*given)
    graph.replay()
    first = found.clone()
    feature.mul_(2)
    graph.replay()
    torch.testing.assert_close(found, 2 * first)
