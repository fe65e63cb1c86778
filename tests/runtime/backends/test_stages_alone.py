"""What a backend does beside its frames: landmarks are found, an alignment goes up with a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engines import FakeTrt
from toy_displacement import CELLS, NAMES, scene

from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.device_backend import DeviceBackend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.session import Session


@pytest.mark.parametrize("graph", ["1", "0"])
@pytest.mark.parametrize("name", ["tensorrt", "rtx"])
def test_they_are_those_of_the_cpu(
    trt: FakeTrt, displacement_toy: Path, monkeypatch: pytest.MonkeyPatch, name: str, graph: str
) -> None:
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    bundle = Bundle.open(displacement_toy)
    results = []
    for each in ("ort-cpu", name):
        session = Session(bundle.manifest, open_backend(each, bundle, threads=1))
        results.append(scene(session))
        session.close()
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(results[0][4], results[0][8]), "the alignment counts"
    assert ("launch" in trt.device.calls) == (graph == "1")


def test_a_frame_takes_the_alignment_up_and_no_image_for_landmarks(
    trt: FakeTrt, displacement_toy: Path
) -> None:
    bundle = Bundle.open(displacement_toy)
    backend = open_backend("tensorrt", bundle)
    assert isinstance(backend, DeviceBackend)

    def held(tensor: str, count: int) -> Any:
        return trt.device.block(backend._memory.address(tensor))[:count]

    backend.view("landmark_image")[...] = 7
    for i in range(3):  # plain, captured, launched
        backend.view("alignment")[...] = i + 1
        begun = len(trt.device.done)
        backend.run_frame()
        assert trt.device.done[begun:].count("upload") == 1
        alignment = held("alignment", 4 * 2 * CELLS**2).view(np.float32)
        assert (alignment == i + 1).all() and not held("landmark_image", 64 * 64).any()
    backend.run("landmarks")
    assert (held("landmark_image", 64 * 64) == 7).all(), "it takes its own up"
    assert backend.read("landmarks").shape == (1, len(NAMES), 3)
    backend.close()
