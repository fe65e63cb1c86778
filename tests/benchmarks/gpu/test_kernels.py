"""The kernels, compiled on the spot and called with torch's tensors, on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lively import lively_model, small_config, speckle

from sonomime.benchmarks.gpu import kernels as module
from sonomime.benchmarks.gpu.kernels import Kernels, build_command
from sonomime.benchmarks.gpu.torch_parts import Way, WayBackend
from sonomime.runtime.media.pixels import levels_apart, to_image, to_planes
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BackendError
from sonomime.training.models import operators
from sonomime.training.models.keypoints.family import KeypointFamily


def test_half_features_in_eights_are_read_as_they_lie(
    host: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = []
    call = Kernels._call
    monkeypatch.setattr(
        Kernels, "_call", lambda self, *given: (layouts.append(given[-1]), call(self, *given))[1]
    )
    feature = torch.randn(1, 8, 6, 6).half()
    last = feature.contiguous(memory_format=torch.channels_last)
    maps = torch.zeros(1, 6, 6, 2), torch.ones(1, 1, 6, 6)
    results = [host.warp_occlude(f, *maps, "half_pixel") for f in (feature, last, last.float())]
    assert layouts == [module.LINEAR, module.HWC8, module.LINEAR]
    assert torch.equal(results[0], results[1]) and results[1].stride() == last.stride()


@pytest.mark.parametrize("preset", ["ours-pt", "fomm"])
def test_stages_compute_the_same_with_the_kernels(host: Kernels, preset: str) -> None:
    model = lively_model(small_config(preset))
    frames, before = [], operators.warp_occlude
    for kernels in (None, host):
        chain = KeypointFamily().chain(model)
        way = Way("fp32", kernels=kernels is not None)
        session = Session(chain, WayBackend(chain, torch.device("cpu"), way, kernels))
        source, reference, driving = (to_planes(speckle(128, seed=seed)) for seed in range(3))
        session.set_source(source)
        session.set_reference(reference)
        frames.append(to_image(session.animate(driving)))
    assert levels_apart(*frames) <= 1
    assert operators.warp_occlude is before


def test_nothing_to_compile_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name, path=None: None)
    monkeypatch.delenv("CXX", raising=False)
    for device, cure in (("cpu", "g++"), ("cuda", "CUDA toolkit")):
        with pytest.raises(BackendError) as caught:
            Kernels.build(device, tmp_path)
        assert cure in caught.value.hint
    monkeypatch.setattr(module, "SOURCES", tmp_path / "none")
    with pytest.raises(BackendError):
        build_command("cpu", tmp_path / "a.so")
