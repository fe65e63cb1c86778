"""A chain of torch modules as a backend: results are kept, and are what the stage declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from arithmetic_chain import ALIGNED, CHAIN, Arithmetic, level
from torch import Tensor, nn

from sonomime.runtime.bundle.manifest import Chain
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BackendError
from sonomime.training.models.stage_modules import ModuleChain, StageModule
from sonomime.training.torch_backend import TorchBackend


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.own = nn.Parameter(torch.ones(1))

    def forward(self, *given: Tensor) -> Any:
        return self.function(*given)


def mean(image: Tensor) -> Tensor:
    return image.float().mean().reshape(1)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "finder": lambda image: mean(image).expand(1, 1, 3),
    "source": mean,
    "observe": mean,
    "reference": lambda seen, source: seen - source,
    "transfer": lambda kept, seen, scale, state, *places: (
        (scale * (seen - kept)).reshape(1, 1, 1, 1) + sum(places, torch.zeros(1, 1, 1, 2)),
        state + 1,
    ),
    "generator": lambda source, move: (
        (source + move[0, 0, 0, :1]).clamp(0, 255).to(torch.uint8).expand(1, 1, 16, 16)
    ),
}


def chain(like: Chain = CHAIN, **changed: Callable[..., Any]) -> ModuleChain:
    functions = FUNCTIONS | changed
    stages = tuple(
        StageModule(s.name, s.role, s.inputs, s.outputs, Lambda(functions[s.name]))
        for s in like.stages
    )
    return ModuleChain(**{**vars(like), "stages": stages})


@pytest.mark.parametrize("in_torch", [True, False])
def test_it_computes_what_the_same_chain_does_in_numpy(in_torch: bool) -> None:
    def opened(like: Chain) -> Session:
        here = chain(like)
        session = Session(here, TorchBackend(here)) if in_torch else Session(like, Arithmetic(like))
        session.set_source(level(40))
        session.set_reference(level(20))
        return session

    session = opened(CHAIN)
    session.animate(level(60))
    session.set_control("scale", 2.0)
    assert session.animate(level(60))[0, 0, 0, 0] == 200  # 40 + 2 x (60 - (20 - 40))
    assert session.read("state")[0] == 2
    session = opened(ALIGNED)
    session.align(np.array([[[[3.0, 5.0]]]], np.float32))
    assert session.match(level(60)).tolist() == [[[80.0, 80.0]]]
    session.animate(level(60))
    assert session.read("displacement").tolist() == [[[[83.0, 85.0]]]]
    assert session.find_landmarks(level(9)).tolist() == [[9.0, 9.0, 9.0]]


def test_a_result_that_is_a_view_of_an_input_or_a_parameter_is_copied() -> None:
    """The driving frame's memory is the caller's, and changes with the next frame."""
    here = chain(observe=lambda image: image)
    stages = list(here.stages)
    whole = replace(stages[1].outputs[0], shape=(1, 1, 16, 16), dtype="uint8")
    stages[1] = replace(stages[1], outputs=(whole,))
    backend = TorchBackend(replace(here, stages=tuple(stages)))
    backend.write("driving_frame", 20)
    backend.run("observe")
    backend.write("driving_frame", 70)
    assert np.all(backend.read("driving_mean") == 20)
    here = chain()
    own = here.stages[1].module.own
    here.stages[1].module.function = lambda image: own
    backend = TorchBackend(here)
    backend.run("observe")
    backend.write("driving_mean", 3)
    assert backend.read("driving_mean")[0] == 3 and own.item() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: image.float(),  # the whole frame
        lambda image: mean(image).double(),
        lambda image: mean(image) / "nothing",
    ],
)
def test_what_a_stage_makes_is_what_it_declares(wrong: Callable[..., Any]) -> None:
    backend = TorchBackend(chain(observe=wrong))
    with pytest.raises(BackendError):
        backend.run("observe")
