"""Stages in torch: functions of a model and of tensors, which return what they make by name.

All names are those on the wire (runtime/bundle/manifest.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ...runtime.bundle.manifest import DRIVING, REFERENCE, Chain, Role, Stage
from ...runtime.bundle.manifest import Tensor as WireTensor

Precision = Literal["fp32", "fp16"]
Kind = tuple[torch.dtype, tuple[int, ...]]
Named = dict[str, Tensor]

MEANINGS = {
    "source_image": "source image, grey levels or RGB, letterboxed",
    "driving_frame": "driving frame, grey levels or RGB, letterboxed",
    "frame": "synthesized frame, grey levels or RGB",
    "state": "smoothing's state: seen, smoothed values, their speeds; zeros: fresh",
    "next_state": "smoothing's state after this frame",
}


@dataclass(frozen=True)
class StageModule(Stage):
    """A stage and the torch module that computes it; its forward takes the inputs in order."""

    module: nn.Module


@dataclass(frozen=True, kw_only=True)
class ModuleChain(Chain):
    """A chain whose stages are torch modules."""

    stages: tuple[StageModule, ...]


class StagePlan(NamedTuple):
    """A stage by its function: its arguments, after the model, are the stage's inputs."""

    name: str
    role: Role
    model: nn.Module
    function: Callable[..., Named]


class Bound(nn.Module):
    """The module of a stage: the outputs of its function in order."""

    def __init__(self, plan: StagePlan) -> None:
        super().__init__()
        self.model, self.function = plan.model, plan.function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.function(self.model, *inputs).values())


def make_stages(
    plans: Sequence[StagePlan],
    given: Mapping[str, Kind],
    meanings: Mapping[str, str],
    precision: Precision,
) -> tuple[StageModule, ...]:
    """The stages. Their models end up frozen, in eval mode and in this precision.

    Args:
        given: kinds of the tensors that no stage makes; a reference's are those of a driving frame.
        meanings: by a tensor's name, or by the part of its name after the first `_`.
    """
    wire = dict(given)

    def tensor(name: str) -> WireTensor:
        dtype, shape = wire[name]
        who, _, what = name.partition("_")
        words = meanings.get(name) or f"{who} {meanings[what]}"
        return WireTensor(name, str(dtype).removeprefix("torch."), shape, words)  # type: ignore[arg-type]

    stages = []
    for plan in plans:
        plan.model.eval().requires_grad_(False)
        if precision == "fp16":  # blurs and grids stay float32
            for part in plan.model.modules():
                if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
                    part.half()
        _, *inputs = inspect.signature(plan.function).parameters
        with FakeTensorMode(allow_non_fake_inputs=True):  # kinds, without computing
            zeros = (torch.zeros(wire[name][1], dtype=wire[name][0]) for name in inputs)
            made = plan.function(plan.model, *zeros)
        for name, result in made.items():
            wire[name] = result.dtype, tuple(result.shape)
            if plan.role == "observe":
                wire[name.replace(DRIVING, REFERENCE, 1)] = wire[name]
        tensors = (tuple(map(tensor, names)) for names in (inputs, made))
        stages.append(StageModule(plan.name, plan.role, *tensors, Bound(plan)))
    return tuple(stages)


def named(who: str, tensors: Any) -> Named:
    """The parts of a NamedTuple of tensors by their names on the wire."""
    return {f"{who}_{name}": tensor for name, tensor in tensors._asdict().items()}


def normalised(image: Tensor) -> Tensor:
    """uint8 (1, C, S, S) -> float32 in [0, 1]."""
    return image.float() / 255


def as_frame(image: Tensor) -> Tensor:
    """float (1, C, S, S) -> uint8, rounded to even and clamped."""
    return (image.float() * 255).round().clamp(0, 255).to(torch.uint8)
