"""A machine with GPUs, played by the host."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from fake_cuda import FakeCuda
from fake_engines import Machine, install


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    gc.freeze()  # what is there already is not searched again and again
    fake = install(monkeypatch)
    yield fake
    fake.gone()
    gc.unfreeze()


@pytest.fixture
def cuda(machine: Machine) -> FakeCuda:
    return machine.cuda
