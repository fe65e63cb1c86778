"""Exported stages are costly to make, so tests share them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx
import pytest
import torch
from lively import lively_checkpoint

from sonomime.export.graphs import export_stage
from sonomime.export.stages import Precision, StageModule, build_stages


class Graphs(Mapping[str, onnx.ModelProto]):
    """The stages of a model by name, exported when they are asked for."""

    def __init__(self, stages: Sequence[StageModule]) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.made: dict[str, onnx.ModelProto] = {}

    def __getitem__(self, name: str) -> onnx.ModelProto:
        if name not in self.made:
            self.made[name] = export_stage(self.stages[name])
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)


GraphMaker = Callable[..., Graphs]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take several times as long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def graphs() -> GraphMaker:
    """Make the stages of a preset's lively model, by name: (preset, precision, *overrides)."""

    @functools.cache
    def make(preset: str, precision: Precision = "fp32", *overrides: str) -> Graphs:
        return Graphs(build_stages(lively_checkpoint(preset, overrides).model(), precision))

    return make
