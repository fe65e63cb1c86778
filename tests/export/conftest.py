"""Exported stages are costly to make, so tests share them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import pytest
import torch
from lively import lively_checkpoint, speckle

from sonomime.export.bundle import export_bundle
from sonomime.export.graphs import export_stage
from sonomime.export.verify import Frames
from sonomime.training.models.base import Precision, StageModule
from sonomime.training.models.families import family_of


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
        model = lively_checkpoint(preset, overrides).model()
        return Graphs(family_of(model.config).chain(model, precision).stages)

    return make


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export a preset's lively model as a verified bundle: (preset, precision, *overrides)."""
    parent = tmp_path_factory.mktemp("exported")

    made: dict[str, Path] = {}

    def make(preset: str, precision: Precision = "fp32", *overrides: str) -> Path:
        name = hashlib.sha256(repr((preset, precision, overrides)).encode()).hexdigest()[:12]
        if name not in made:
            made[name] = export(parent / name, preset, precision, overrides)
        return made[name]

    def export(out: Path, preset: str, precision: Precision, overrides: Sequence[str]) -> Path:
        checkpoint = lively_checkpoint(preset, overrides)
        config = checkpoint.config.model
        pictures = [speckle(config.image_size, config.channels, seed) for seed in range(3)]
        frames = Frames(pictures[0], tuple(pictures[1:]))
        export_bundle(checkpoint, "0" * 64, out, frames, precision)
        return out

    return make
