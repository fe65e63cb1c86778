"""The kernels, compiled once for the CPU."""

from __future__ import annotations

import pytest

from sonomime.benchmarks.gpu.kernels import Kernels, compiler


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    if compiler() is None:
        pytest.skip("there is no C++ compiler")
    return Kernels.build("cpu", tmp_path_factory.mktemp("kernels"))
