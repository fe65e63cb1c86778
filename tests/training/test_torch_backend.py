"""A chain of torch modules as a backend: results are kept, and are what the stage declares.

What it computes is compared with the models' own in models/test_stages.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from arithmetic_chain import CHAIN, image
from torch import Tensor, nn

from sonomime.runtime.support.errors import BackendError
from sonomime.training.models.base import ModuleChain, StageModule
from sonomime.training.torch_backend import TorchBackend


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.own = nn.Parameter(torch.ones(1))

    def forward(self, given: Tensor) -> Any:
        return self.function(self, given)


def observing(function: Callable[..., Any], whole: bool = False) -> TorchBackend:
    """A backend whose `observe` is the function, and makes one number or a whole picture."""
    source, observe = CHAIN.stages[:2]
    made = (image("driving_mean"),) if whole else observe.outputs
    stages = (
        StageModule("source", "source", source.inputs, source.outputs, Lambda(function)),
        StageModule("observe", "observe", observe.inputs, made, Lambda(function)),
        StageModule("generator", "frame", made, (image("frame"),), Lambda(function)),
    )
    return TorchBackend(ModuleChain(**{**vars(CHAIN), "stages": stages, "recurrent": ()}))


def test_a_result_that_is_a_view_of_an_input_or_a_parameter_is_copied() -> None:
    """The driving frame's memory is the caller's, and changes with the next frame."""
    backend = observing(lambda module, image: image, whole=True)
    backend.write("driving_frame", 20)
    backend.run("observe")
    backend.write("driving_frame", 70)
    assert np.all(backend.read("driving_mean") == 20)
    backend = observing(lambda module, image: module.own)
    backend.run("observe")
    backend.write("driving_mean", 3)
    assert backend.read("driving_mean")[0] == 3
    backend.run("observe")
    assert backend.read("driving_mean")[0] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda module, image: image.float(),  # the whole frame
        lambda module, image: image.double().mean().reshape(1),
        lambda module, image: image / "nothing",
    ],
)
def test_what_a_stage_makes_is_what_it_declares(wrong: Callable[..., Any]) -> None:
    backend = observing(wrong)
    with pytest.raises(BackendError):
        backend.run("observe")
    with pytest.raises(BackendError):
        backend.view("driving_mean")  # no memory on the host
