"""What is timed in torch: kernels, ways to compute a frame, training steps, as far as a CPU can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import host_kernels
import pytest
import torch
from lively import SMALL, SMALL_LITE, lively_model, small_config, speckle
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_bundle import make_toy_bundle

from sonomime.benchmarks.gpu import kernels as module
from sonomime.benchmarks.gpu import torch_parts
from sonomime.benchmarks.gpu.kernels import CASES, Case, Kernels, make_work, time_kernel
from sonomime.benchmarks.gpu.torch_parts import LEAST_PSNR, WAYS, Way, WayBackend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.pixels import Image, levels_apart, psnr, to_image, to_planes
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BackendError
from sonomime.training.config_file import load_config
from sonomime.training.models import operators
from sonomime.training.models.families import family_of

CPU = torch.device("cpu")


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
    extra = ("model.geometry=fomm_aligned", "model.channels=3") if preset == "fomm" else ()
    model = lively_model(small_config(preset, *extra))
    stages = family_of(model.config).chain(model, "fp16")
    backend = WayBackend(stages, torch.device("meta"), Way("fp16"))
    with torch.no_grad(), FromTheCpu() as seen:
        for stage in backend.stages.values():
            backend.compute(stage)
    assert seen.count > 100 and seen.operators == set()
    assert {tensor.device.type for tensor in backend.tensors.values()} == {"meta"}


@pytest.fixture
def host() -> Kernels:
    """The kernels, compiled for the CPU."""
    return host_kernels.built()


def test_half_features_in_eights_are_read_as_they_lie(
    host: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = MagicMock(side_effect=host._call)
    monkeypatch.setattr(host, "_call", call)
    feature = torch.randn(1, 8, 6, 6).half()
    last = feature.contiguous(memory_format=torch.channels_last)
    maps = torch.zeros(1, 6, 6, 2), torch.ones(1, 1, 6, 6)
    results = [host.warp_occlude(f, *maps, "half_pixel") for f in (feature, last, last.float())]
    layouts = [each.args[-1] for each in call.mock_calls]
    assert layouts == [module.LINEAR, module.HWC8, module.LINEAR]
    assert torch.equal(results[0], results[1]) and results[1].stride() == last.stride()


def frames_of(
    preset: str, way: Way, place: torch.device = CPU, kernels: Kernels | None = None, count: int = 3
) -> Iterator[Image]:
    """Frames of a small model."""
    model = lively_model(small_config(preset))
    chain = family_of(model.config).chain(model, way.precision)
    session = Session(chain, WayBackend(chain, place, way, kernels))
    source, reference, *driving = (to_planes(speckle(128, seed=seed)) for seed in range(2 + count))
    session.set_source(source)
    session.set_reference(reference)
    for frame in driving:
        yield to_image(session.animate(frame))


@pytest.mark.parametrize("preset", ["ours-pt", "fomm"])
def test_stages_compute_the_same_with_the_kernels(host: Kernels, preset: str) -> None:
    before = operators.warp_occlude
    (expected,) = frames_of(preset, Way("fp32"), count=1)
    (found,) = frames_of(preset, Way("fp32", kernels=True), kernels=host, count=1)
    assert levels_apart(found, expected) <= 1
    assert operators.warp_occlude is before


def test_nothing_to_compile_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name, path=None: None)
    with pytest.raises(BackendError) as caught:
        Kernels.build(tmp_path)
    assert "CUDA toolkit" in caught.value.hint
    monkeypatch.setattr(module, "SOURCES", tmp_path / "none")
    with pytest.raises(BackendError):
        module.build_command(tmp_path / "a.so")


def test_kernels_are_timed_on_smooth_motion(host: Kernels) -> None:
    """Neighbouring threads read neighbouring pixels in a frame, and so in what is timed."""
    for op in ("warp_occlude", "sparse_motion", "compose_motion"):
        half = op == "warp_occlude"  # the others have no half precision
        case = Case(op, torch.float16 if half else torch.float32, 8, last=half, side=16)
        row = time_kernel(host, CPU, case, 1)
        assert row["microseconds"] > 0 and row["torch_microseconds"] > 0 and row["bytes"] > 0
        kernel, plain, _ = make_work(case, host, CPU)
        wanted = plain().double()
        assert (kernel().double() - wanted).abs().max() < 2e-3 * wanted.abs().max().clamp(min=1)
        if op == "warp_occlude":
            where = kernel.args[1]  # type: ignore[attr-defined]
            assert 8 * where.diff(dim=2).abs().max() < 4, "pixels between neighbours"


def test_a_way_is_held_against_float32_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The default bundle is one whose golden pictures have the small model's size.
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy", size=128))
    monkeypatch.setattr(Bundle, "open", lambda path: bundle)
    model = lively_model(load_config("lite", SMALL_LITE))
    expected = torch_parts.frame_on_cpu(model)
    for way in (Way("fp32"), Way("fp32", plain=True)):
        row = torch_parts.time_way(model, way, CPU, expected, 1)
        assert row["agrees"] and row["levels_apart"] == 0
        assert row["milliseconds"]["frame"]["count"] == 1
    half = torch_parts.time_way(model, Way("fp16"), CPU, expected, 1)
    assert 30 < half["psnr_db"] < 120, "half precision is near, and not the same"
    assert not torch_parts.time_way(model, Way("fp32"), CPU, 255 - expected, 1)["agrees"]
    names = [way.name for way in WAYS]
    assert len(set(names)) == len(names) and names[0] == "eager, fp16, our kernels, CUDA graph"
    assert [way.compiled for way in WAYS] == sorted(way.compiled for way in WAYS)


@pytest.mark.parametrize(("preset", "small"), [("lite", SMALL_LITE), ("ours-ptg", SMALL)])
def test_training_steps_are_timed(
    preset: str, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    row = torch_parts.time_training(preset, 2, *small, "train.batch_size=2")
    assert row["batch"] == 2 and row["ms"]["count"] == 2


@pytest.fixture(scope="module")
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return torch.device("cuda", 0)


@pytest.fixture(scope="module")
def kernels(gpu: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels.build(tmp_path_factory.mktemp("kernels"))


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["lite", "ours-ptg"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_frames_on_a_gpu_are_those_of_the_cpu(
    preset: str, way: Way, gpu: torch.device, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    built = request.getfixturevalue("kernels") if way.kernels else None
    pairs = zip(frames_of(preset, way, gpu, built), frames_of(preset, Way("fp32")), strict=True)
    assert all(psnr(*pair) >= LEAST_PSNR[way.precision] for pair in pairs)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernels_are_timed(case: Case, kernels: Kernels, gpu: torch.device) -> None:
    row = time_kernel(kernels, gpu, case, 3)
    assert row["microseconds_from_memory"] > 0 and row["bandwidth_share"] > 0
