"""TensorRT and a GPU, played by the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_engines import FakeTrt, install


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTrt]:
    fake = install(monkeypatch)
    yield fake
    fake.gone()
