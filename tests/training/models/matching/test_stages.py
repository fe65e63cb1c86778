"""The stages, driven by a Session, against the model's own methods; the pictures of a training."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from lively import SMALL_LITE, lively_checkpoint, noise, speckle
from torch import nn

from sonomime.runtime.bundle.checks import check_wiring
from sonomime.runtime.bundle.manifest import LANDMARK_IMAGE, LANDMARKS
from sonomime.runtime.media.pixels import levels_apart, to_planes
from sonomime.runtime.session import Session
from sonomime.training.data.batch import PairBatch
from sonomime.training.logbook import picture_grid
from sonomime.training.models.matching.family import MatchingFamily
from sonomime.training.models.matching.model import MatchingModel
from sonomime.training.torch_backend import TorchBackend

FAMILY = MatchingFamily()
AWAY = {"scale": 0.6, "shade": 0.7, "min_cutoff": 1.5, "beta": 10.0, "dt_seconds": 0.1}
NAMES = ("apex", "neck")
FINDS = ("landmarks.count=2", "landmarks.width=8")
VARIANTS: dict[str, tuple[str, ...]] = {
    "colour, no shading": ("channels=3", "matcher.shading=0"),
    "tiny": ("image_size=64", "matcher.grid=8", "matcher.stiff=2", "matcher.shading=8", *FINDS),
    "plain": ("matcher.stiff=16", "matcher.shading=16", "corrector.blocks=0"),
}


def model_of(overrides: Sequence[str] = ()) -> MatchingModel:
    changed = [f"model.{each}" for each in overrides]
    model: MatchingModel = lively_checkpoint("lite", (*SMALL_LITE, *changed)).model()
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_stages_compute_what_the_model_does(variant: str) -> None:
    model = model_of(VARIANTS[variant])
    chain, oracle = FAMILY.chain(model, names=NAMES), FAMILY.oracle(model)
    session, config = Session(chain, TorchBackend(chain)), model.config
    source, reference, *frames = (
        speckle(config.image_size, config.channels, seed) for seed in range(4)
    )
    oracle.set_source(source, reference)
    session.set_source(to_planes(source))
    session.set_reference(to_planes(reference))
    for name, value in AWAY.items():
        session.set_control(name, value)
    tensors = chain.tensors().keys()
    for frame in frames:
        wanted = oracle.animate(frame, AWAY)
        found = session.animate(to_planes(frame))
        if LANDMARKS in tensors:
            assert np.array_equal(wanted[LANDMARK_IMAGE], to_planes(frame))
            session.find_landmarks(to_planes(frame))
        assert levels_apart(found, wanted["frame"]) <= 1
        assert wanted.keys() >= tensors
        for name in tensors - {"frame", "state"}:
            value = session.read(name)
            assert (value.dtype, value.shape) == (wanted[name].dtype, wanted[name].shape), name
            error = np.abs(value.astype(np.float64) - wanted[name]).max()
            assert error <= 1e-4 * max(1, np.abs(wanted[name]).max()), name


@pytest.mark.parametrize(("count", "names"), [(2, NAMES), (2, ()), (0, NAMES)], ids=str)
def test_who_finds_landmarks(count: int, names: Sequence[str]) -> None:
    chain = FAMILY.chain(model_of((f"landmarks.count={count}",)), names=names)
    check_wiring(chain)
    found = bool(count and names)
    assert chain.control.landmarks == (NAMES if found else ())
    assert [stage.name for stage in chain.of_role("landmarks")] == ["landmarks"] * found


def test_half_precision_is_for_convolutions_and_what_they_make() -> None:
    model = model_of(FINDS)
    before = copy.deepcopy(model.state_dict())
    chain = FAMILY.chain(model, "fp16")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    tensors = chain.tensors()
    half = {name for name, tensor in tensors.items() if tensor.dtype == "float16"}
    seen = {f"{who}_{what}" for who in ("driving", "reference") for what in ("fine", "coarse")}
    assert half == {"source_feature"} | seen
    for stage in chain.stages:
        for module in stage.module.modules():
            kind = torch.float16 if isinstance(module, nn.Conv2d) else torch.float32
            own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            assert all(x.dtype == kind for x in own if x.is_floating_point())


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_the_picture_grid_shows_what_was_found(channels: int) -> None:
    images, none = noise(2, 2, channels, 128, 128), torch.zeros(2, 0, 2)
    no, real = torch.zeros(2, 0, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    pairs = PairBatch(*images, none, none, no, no, None, None, None, real, no, no)
    shown, finds = (
        FAMILY.columns(model_of((f"channels={channels}", *more)), pairs) for more in ((), FINDS)
    )
    assert shown.points == {}
    assert [each.shape for each in finds.points.values()] == [(2, 2, 2)] * 2
    for name in ("displacement", "confidence", "shading", "folding"):
        assert 0 <= shown.images[name].min() <= shown.images[name].max() <= 1, name
    grid = picture_grid({k: v.numpy() for k, v in shown.images.items()}, {})
    assert grid.shape == (22 + 2 * 128, 9 * 128, 3)
    cells = zip(shown.images, np.split(grid[22:], 9, axis=1), strict=True)
    assert {name for name, cell in cells if cell.std() < 0.5} <= {"folding"}
