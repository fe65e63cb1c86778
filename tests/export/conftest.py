"""Exported stages are costly to make, so tests share them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import onnx
import pytest
import torch
from lively import lively_checkpoint

from sonomime.export.graphs import export_stage
from sonomime.export.stages import Precision, build_stages

Graphs = dict[str, onnx.ModelProto]
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
        model = lively_checkpoint(preset, overrides).model()
        return {stage.name: export_stage(stage) for stage in build_stages(model, precision)}

    return make
