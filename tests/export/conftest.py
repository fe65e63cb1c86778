"""Exported stages are costly to make, so tests share them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import pytest
from lively import SMALL, lively_checkpoint, speckle

from sonomime.export import bundle
from sonomime.export.graphs import export_stage
from sonomime.export.verify import Frames
from sonomime.training.models.base import Precision, StageModule
from sonomime.training.models.families import family_of


class Graphs(dict[str, onnx.ModelProto]):
    """The stages of a model by name, exported when they are asked for."""

    def __init__(self, stages: Sequence[StageModule]) -> None:
        self.stages = {stage.name: stage for stage in stages}

    def __missing__(self, name: str) -> onnx.ModelProto:
        self[name] = export_stage(self.stages[name])
        return self[name]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of engines, empty; there is no plugin."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)
    return tmp_path / "cache" / "sonomime" / "engines"


@pytest.fixture(scope="session")
def graphs() -> Callable[..., Graphs]:
    """Make the stages of a preset's lively model, by name: (preset, precision, *overrides)."""

    @functools.cache
    def make(preset: str, precision: Precision = "fp32", *overrides: str) -> Graphs:
        checkpoint = lively_checkpoint(preset, overrides)
        family, names = family_of(checkpoint.config.model), checkpoint.supervised_names
        return Graphs(family.chain(checkpoint.model(), precision, names).stages)

    return make


@pytest.fixture(scope="session")
def bundles(
    graphs: Callable[..., Graphs], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Export a preset's lively model as a verified bundle: (preset, precision, *overrides)."""

    @functools.cache
    def make(preset: str, precision: Precision = "fp32", *overrides: str) -> Path:
        checkpoint = lively_checkpoint(preset, overrides)
        made = graphs(preset, precision, *overrides)
        config, out = checkpoint.config.model, tmp_path_factory.mktemp("exported") / "bundle"
        source, *driving = (speckle(config.image_size, config.channels, seed) for seed in range(3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bundle, "export_stage", lambda stage: made[stage.name])
            frames = Frames(source, tuple(driving))
            bundle.export_bundle(checkpoint, "0" * 64, out, frames, precision)
        return out

    return make


@pytest.fixture(scope="session")
def small(bundles: Callable[..., Path]) -> Path:
    """A small bundle of keypoints in float32."""
    return bundles("ours-pt", "fp32", *SMALL)
