"""The kernels, compiled for the host."""

from __future__ import annotations

import host_kernels
import pytest

from sonomime.benchmarks.gpu.kernels import Kernels


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    return host_kernels.built()
