"""The ways to compute a frame in torch: on the device alone; on a GPU, the frame of the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lively import lively_model, small_config, speckle
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sonomime.benchmarks.gpu.kernel_times import CASES, Case, time_kernel
from sonomime.benchmarks.gpu.kernels import Kernels
from sonomime.benchmarks.gpu.torch_parts import LEAST_PSNR, WAYS, Way, WayBackend
from sonomime.runtime.media.pixels import psnr, to_image, to_planes
from sonomime.runtime.session import Session
from sonomime.training.models.families import family_of


class FromTheCpu(TorchDispatchMode):
    """Notes the operators that are given a tensor of the CPU, or make one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.count += 1
        for leaf in tree_leaves((args, kwargs, made)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                self.operators.add(str(func))
        return made


@pytest.mark.parametrize("preset", ["lite", "ours-ptg", "fomm"])
def test_every_stage_stays_on_its_device(preset: str) -> None:
    """On torch's device without memory. A copy from the CPU cannot be captured: its memory is not
    pinned, and gone when the graph is replayed."""
    extra = ("model.geometry=fomm", "model.channels=3") if preset == "fomm" else ()
    model = lively_model(small_config(preset, *extra))
    stages = family_of(model.config).chain(model, "fp16")
    backend = WayBackend(stages, torch.device("meta"), Way("fp16"))
    with torch.no_grad(), FromTheCpu() as seen:
        for stage in backend.stages.values():
            backend.compute(stage)
    assert seen.count > 100 and seen.operators == set()
    assert {tensor.device.type for tensor in backend.tensors.values()} == {"meta"}


@pytest.fixture(scope="module")
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return torch.device("cuda", 0)


@pytest.fixture(scope="module")
def kernels(gpu: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels.build("cuda", tmp_path_factory.mktemp("kernels"))


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["lite", "ours-ptg"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_frames_on_a_gpu_are_those_of_the_cpu(
    preset: str, way: Way, gpu: torch.device, request: pytest.FixtureRequest
) -> None:
    torch.backends.cudnn.allow_tf32 = False
    built = request.getfixturevalue("kernels") if way.kernels else None
    model = lively_model(small_config(preset))
    source, reference, *driving = (to_planes(speckle(128, seed=seed)) for seed in range(5))
    frames = []
    for place, used in ((torch.device("cpu"), Way("fp32")), (gpu, way)):
        chain = family_of(model.config).chain(model, used.precision)
        session = Session(chain, WayBackend(chain, place, used, built))
        session.set_source(source)
        session.set_reference(reference)
        frames.append([to_image(session.animate(frame)) for frame in driving])
    for expected, found in zip(*frames, strict=True):
        assert psnr(found, expected) >= LEAST_PSNR[way.precision]


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernels_are_timed(case: Case, kernels: Kernels, gpu: torch.device) -> None:
    row = time_kernel(kernels, gpu, case, 3)
    assert row["microseconds_from_memory"] > 0 and row["bandwidth_share"] > 0
