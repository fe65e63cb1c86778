"""The kernels, compiled for the CPU, and for a GPU where there is one."""

from __future__ import annotations

import host_kernels
import pytest
import torch

from sonomime.benchmarks.gpu.kernels import Kernels


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> host_kernels.Checked:
    if request.param == "cpu":
        return host_kernels.built()
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    made = Kernels.build(tmp_path_factory.mktemp("kernels"))
    return host_kernels.Checked(made.library._name, "cuda")
