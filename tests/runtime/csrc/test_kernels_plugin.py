"""The TensorRT plugin around the kernels. All of it needs TensorRT's headers: TENSORRT_ROOT."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import host_kernels
import plugin_creators
import pytest
from host_kernels import ROOT, compiler, run

from sonomime.benchmarks.gpu.kernels import SIGNATURES, SOURCES

pytestmark = pytest.mark.slow


def folder_with(header: str, candidates: list[Path]) -> Path:
    for folder in candidates:
        if (folder / header).exists():
            return folder
    pytest.skip(f"{header} was not found")


@pytest.fixture(scope="module")
def tensorrt_headers() -> Path:
    roots = [Path(os.environ["TENSORRT_ROOT"])] if "TENSORRT_ROOT" in os.environ else []
    system = [Path("/usr/include"), *sorted(Path("/usr/include").glob("*-linux-gnu"))]
    return folder_with("NvInferRuntime.h", [*(root / "include" for root in roots), *system])


def test_what_tensorrt_asks_is_answered(tensorrt_headers: Path, tmp_path: Path) -> None:
    """Creation, serialisation, shapes, types, formats, refusals; enqueue with host arithmetic."""
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    homes += sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    cuda_headers = folder_with("cuda_runtime_api.h", [home / "include" for home in homes])
    driver = tmp_path / "driver"
    sources = [ROOT / "tests" / "plugin_driver.cpp", SOURCES / "plugin.cpp"]
    headers = ["-isystem", tensorrt_headers, "-isystem", cuda_headers]
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", driver]
    run(compiler(), *options, *host_kernels.EMULATED, "-x", "none", *headers, *sources)
    done = run(driver)
    assert done.stdout == "all checks hold\n"
    for said in (
        "WarpOcclude: the feature is not (1, C, H, W)",
        "WarpOcclude: CUDA error 1;",
        "SparseMotion n: variance is not above 0 and finite",
        "SparseMotion: the first input has to be float32, all others float32",
    ):
        assert f"sonomime plugin: {said}" in done.stderr


@pytest.fixture(scope="module")
def plugin(tensorrt_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target `plugin`."""
    options = [f"-DNVINFER_INCLUDE_DIR={tensorrt_headers}", "-DSONOMIME_BUILD_PLUGIN=ON"]
    options.append("-DCMAKE_CUDA_ARCHITECTURES=90")
    return host_kernels.cmake(tmp_path_factory.mktemp("build"), "plugin", *options)


def test_it_needs_no_tensorrt_library(plugin: Path) -> None:
    if shutil.which("ldd") is None:
        pytest.skip("ldd is not installed")
    needed = run("ldd", plugin).stdout
    assert not any(name in needed for name in ("nvinfer", "cudart", "not found"))
    assert host_kernels.exported(plugin) == {"getCreators", "setLoggerFinder", *SIGNATURES}


def test_tensorrt_finds_its_creators(plugin: Path) -> None:
    if not any(importlib.util.find_spec(name) for name in plugin_creators.MODULES):
        pytest.skip("neither tensorrt nor a lean runtime is installed")
    said = run(sys.executable, ROOT / "tests" / "plugin_creators.py", plugin).stdout
    assert all(f"sonomime::{name} version 1" in said for name in plugin_creators.NAMES)
