"""What the stages of every family share: frames on the wire, half precision, wire tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ...runtime.bundle.manifest import ControlInput, Role
from ...runtime.bundle.manifest import Tensor as WireTensor
from ..config import ModelConfig
from .base import Precision, StageModule

Kind = tuple[torch.dtype, tuple[int, ...]]

_MEANINGS = {
    "source_image": "source image, grey levels or RGB, letterboxed",
    "driving_frame": "driving frame, grey levels or RGB, letterboxed",
    "frame": "synthesized frame, grey levels or RGB",
    "state": "smoothing's state: seen, smoothed values, their speeds; zeros: fresh",
    "next_state": "smoothing's state after this frame",
}


class StagePlan(NamedTuple):
    """A stage whose tensors are only named."""

    name: str
    role: Role
    module: nn.Module
    inputs: Sequence[str]
    outputs: Sequence[str]


def normalised(image: Tensor) -> Tensor:
    """uint8 (1, C, S, S) -> float32 in [0, 1]."""
    return image.float() / 255


def as_frame(image: Tensor) -> Tensor:
    """float (1, C, S, S) -> uint8, rounded to even and clamped."""
    return (image.float() * 255).round().clamp(0, 255).to(torch.uint8)


def common_inputs(
    config: ModelConfig, controls: Sequence[ControlInput], state_size: int
) -> dict[str, Kind]:
    """Kinds of the inputs that every family has and no stage makes."""
    image = (torch.uint8, (1, config.channels, config.image_size, config.image_size))
    return {
        "source_image": image,
        "driving_frame": image,
        "state": (torch.float32, (1, state_size)),
        **{control.name: (torch.float32, (1,)) for control in controls},
    }


def make_stages(
    plans: Sequence[StagePlan],
    given: Mapping[str, Kind],
    meanings: Mapping[str, str],
    controls: Sequence[ControlInput],
    precision: Precision,
) -> tuple[StageModule, ...]:
    """The stages. Their modules end up frozen, in eval mode and in this precision.

    Args:
        given: kinds of the tensors that no stage makes.
        meanings: by a tensor's name, or by the part of its name after the first `_`.
    """
    wire = dict(given)
    meanings = _MEANINGS | dict(meanings) | {control.name: control.meaning for control in controls}

    def tensor(name: str) -> WireTensor:
        dtype, shape = wire[name]
        who, _, what = name.partition("_")
        words = meanings.get(name) or f"{who} {meanings[what]}"
        return WireTensor(name, str(dtype).removeprefix("torch."), shape, words)  # type: ignore[arg-type]

    stages = []
    for plan in plans:
        plan.module.eval().requires_grad_(False)
        if precision == "fp16":  # blurs and grids stay float32
            for part in plan.module.modules():
                if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
                    part.half()
        made = _results(plan.module, [wire[name] for name in plan.inputs])
        wire |= zip(plan.outputs, made, strict=True)
        inputs, outputs = (tuple(map(tensor, names)) for names in (plan.inputs, plan.outputs))
        stages.append(StageModule(plan.name, plan.role, inputs, outputs, plan.module))
    return tuple(stages)


def _results(module: nn.Module, inputs: list[Kind]) -> list[Kind]:
    """Kinds of a module's results, without computing them."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        results = module(*(torch.zeros(shape, dtype=dtype) for dtype, shape in inputs))
    listed = [results] if isinstance(results, Tensor) else results
    return [(result.dtype, tuple(result.shape)) for result in listed]
