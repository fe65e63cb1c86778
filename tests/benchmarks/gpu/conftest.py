"""The kernels, compiled once for the CPU."""

from __future__ import annotations

import host_kernels
import pytest

from sonomime.benchmarks.gpu.kernels import Kernels


@pytest.fixture(scope="session")
def host() -> Kernels:
    return host_kernels.built()
