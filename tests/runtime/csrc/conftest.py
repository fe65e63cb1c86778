"""The kernels, compiled for the host."""

from __future__ import annotations

import host_kernels
import pytest

from sonomime.benchmarks.gpu.kernels import Kernels, compiler


@pytest.fixture(scope="session", params=["fused", "emulated"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """Their arithmetic with multiplication and addition fused, as nvcc does it; and the CUDA
    kernels with their launch functions, emulated."""
    cxx = compiler()
    if cxx is None:
        pytest.skip("no C++ compiler was found")
    if request.param == "fused" and not host_kernels.can_fuse():
        pytest.skip("this processor has no fused multiply-add")
    return host_kernels.build(cxx, tmp_path_factory.mktemp("kernels"), request.param)
