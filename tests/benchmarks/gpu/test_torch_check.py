"""A model's chain in torch: held against the model, timed in the ways that a device allows."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sonomime.benchmarks.gpu import torch_check
from sonomime.benchmarks.gpu.stage_chain import DeviceChain, plain_loop
from sonomime.benchmarks.gpu.torch_check import (
    Pictures,
    Variant,
    check_model,
    check_variant,
    torch_lines,
    variants,
)
from sonomime.benchmarks.lively import lively_model, small_config, speckle
from sonomime.runtime.media.pixels import levels_apart, to_image
from sonomime.training.models.families import family_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    shots = [speckle(128, 1, seed) for seed in range(4)]
    return Pictures(shots[0], shots[1], tuple(shots[2:]))


@pytest.fixture(scope="module")
def lite() -> Any:
    return lively_model(small_config("lite"))


def device_chain(model: Any, pictures: Pictures) -> DeviceChain:
    """In float32 on the CPU, with source and reference."""
    stages = family_of(model.config).chain(model)
    chain = DeviceChain(stages, CPU)
    pictures.begin(stages, chain)
    return chain


def test_a_variant_is_held_against_the_model(lite: Any, pictures: Pictures) -> None:
    expected = torch_check.expected_frames(lite, pictures)
    same = check_variant(lite, Variant("fp32"), CPU, pictures, expected, None, 2)
    assert same["agrees"] and same["levels_apart"] == 0 and same["frame_ms"]["count"] == 2
    assert list(same["stages_ms"]) == ["observe", "transfer", "motion", "generator"]
    half = check_variant(lite, Variant("fp16"), CPU, pictures, expected, None, 2)
    assert 30 < half["psnr_db"] < 120, "half precision is near, and not the same"
    other = [255 - frame for frame in expected]
    wrong = check_variant(lite, Variant("fp32"), CPU, pictures, other, None, 2)
    assert not wrong["agrees"]
    rows = [same, wrong, {"variant": "plain loop, fp32", "frame_ms": same["frame_ms"]}]
    lines = list(torch_lines(rows))
    assert "DIFFERS" in lines[2] and "DIFFERS" not in lines[1]
    assert lines[1].split()[-1] == "1.0", "the plain loop took as long"


def test_a_variant_that_fails_says_why_and_leaves_torch_as_it_was(
    lite: Any, pictures: Pictures
) -> None:
    before = torch.backends.cudnn.allow_tf32
    row = check_variant(lite, Variant("fp32", graph=True), CPU, pictures, [], None, 2)
    assert row["failed"] and "failed:" in "\n".join(torch_lines([row]))
    assert torch.backends.cudnn.allow_tf32 is before


def test_what_is_not_finite_does_not_agree(lite: Any, pictures: Pictures) -> None:
    expected = torch_check.expected_frames(lite, pictures)
    chain = device_chain(lite, pictures)
    assert chain.finite()
    chain.tensors["deformation"] = torch.tensor([torch.nan])
    assert not chain.finite()
    assert len(expected) == 2


def test_the_chain_is_the_models_own(lite: Any, pictures: Pictures) -> None:
    """Against the reference that the export is verified with, smoothing off, relative."""
    oracle = family_of(lite.config).oracle(lite)
    oracle.set_source(pictures.source, pictures.reference)
    for frame, found in zip(
        pictures.driving, torch_check.expected_frames(lite, pictures), strict=True
    ):
        assert levels_apart(found, to_image(oracle.animate(frame)["frame"])) <= 1


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


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("preset", ["lite", "ours-ptg", "fomm"])
def test_every_stage_stays_on_its_device(preset: str, channels_last: bool) -> None:
    """On torch's device without memory. A copy from the CPU cannot be captured: its memory is not
    pinned, and gone when the graph is replayed."""
    extra = ("model.geometry=fomm", "model.channels=3") if preset == "fomm" else ()
    model = lively_model(small_config(preset, *extra))
    stages = family_of(model.config).chain(model, "fp16")
    chain = DeviceChain(stages, torch.device("meta"), channels_last=channels_last)
    with torch.no_grad(), FromTheCpu() as seen:
        for stage in chain.stages.values():
            chain.compute(stage)
    assert seen.count > 100 and seen.operators == set()
    assert {tensor.device.type for tensor in chain.tensors.values()} == {"meta"}


def test_the_plain_loop_makes_every_frame(lite: Any, pictures: Pictures) -> None:
    chain = device_chain(lite, pictures)
    runs: list[str] = []
    for name, module in list(chain.modules.items()):
        chain.modules[name] = lambda *given, module=module, name=name: (
            runs.append(name),
            module(*given),
        )[1]
    assert len(plain_loop(chain, pictures.source, pictures.driving, 3)) == 3
    assert runs == ["source", "observe", "transfer", "motion", "generator"] * 3


def test_the_ways_of_a_gpu() -> None:
    names = [variant.name for variant in variants(gpu=True)]
    assert len(set(names)) == len(names) == 14
    assert names[0] == "eager, fp16, channels last, our kernels, CUDA graph", "first what matters"
    assert max(names.index(f"plain loop, {p}") for p in ("fp16", "fp32")) < 5
    assert all("compiled" in name for name in names[-3:])
    assert not any("compiled" in v.name for v in variants(True, compiled=False))
    assert not any("our kernels" in v.name for v in variants(True, kernels=False))


def test_the_plain_loop_is_held_to_the_same_settings(
    lite: Any, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 that is float32, and cuDNN's choice of kernels, or the ratio would say nothing."""
    seen = []

    def loop(chain: DeviceChain, *given: Any) -> list[float]:
        cudnn = torch.backends.cudnn
        seen.append((chain.stages["source"].inputs[0].dtype, cudnn.allow_tf32, cudnn.benchmark))
        return [0.5]

    monkeypatch.setattr(torch_check, "plain_loop", loop)
    before = torch.backends.cudnn.benchmark
    row = check_variant(lite, Variant("fp32", plain=True), CPU, pictures, [], None, 3)
    assert row["variant"] == "plain loop, fp32" and row["frame_ms"]["p50"] == 500
    assert seen == [("uint8", False, True)] * 2 and torch.backends.cudnn.benchmark is before


def test_every_way_is_told_when_it_begins(lite: Any, pictures: Pictures) -> None:
    """So that whoever listens knows which one it was that took the process down."""
    todo = [Variant("fp32"), Variant("fp32", graph=True), Variant("fp32", plain=True)]
    messages = list(check_model(lite, CPU, pictures, None, 2, todo))
    assert [list(message) for message in messages] == [["begin"], ["row"]] * 3
    begun = [message["begin"] for message in messages[::2]]
    rows = [message["row"] for message in messages[1::2]]
    assert begun == [row["variant"] for row in rows] == [way.name for way in todo]
    assert ["failed" in row for row in rows] == [False, True, False], "the CPU has no graphs"


def test_on_a_gpu_no_way_follows_one_that_failed(
    lite: Any, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu: Any = types.SimpleNamespace(type="cuda")
    for row, told in (({"failed": "illegal"}, 1), ({"launches": {"failed": "x"}}, 1), ({}, 2)):
        monkeypatch.setattr(torch_check, "check_variant", lambda *given, row=row: row)
        monkeypatch.setattr(torch_check, "_wake", lambda device: None)
        messages = check_model(lite, gpu, pictures, None, 1, variants(gpu=True)[:2])
        assert [message["row"] for message in messages if "row" in message] == [row] * told
