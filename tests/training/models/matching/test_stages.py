"""The stages, driven by a Session, against the model's own methods."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from lively import SMALL_LITE, lively_checkpoint, speckle
from torch import nn

from sonomime.runtime.bundle.checks import check_wiring
from sonomime.runtime.media.pixels import levels_apart, psnr, to_planes
from sonomime.runtime.session import Session, own_places
from sonomime.training.models.base import Precision
from sonomime.training.models.matching.family import MatchingFamily
from sonomime.training.models.matching.model import MatchingModel
from sonomime.training.torch_backend import TorchBackend

AWAY = {"scale": 0.6, "shade": 0.7, "min_cutoff": 1.5, "beta": 10.0, "dt_seconds": 0.1}
CALM = {"min_cutoff": 0.05, "beta": 0.0}
TINY = ("image_size=64", "matcher.grid=8", "matcher.stiff=2", "matcher.shading=8")
VARIANTS: dict[str, tuple[str, ...]] = {
    "grey": (),
    "colour": ("channels=3",),
    "no shading": ("matcher.shading=0",),
    "tiny": TINY,
    "plain": ("matcher.stiff=16", "matcher.shading=16", "corrector.blocks=0"),
}


def model_of(overrides: Sequence[str] = ()) -> MatchingModel:
    changed = [f"model.{each}" for each in overrides]
    model: MatchingModel = lively_checkpoint("lite", (*SMALL_LITE, *changed)).model()
    return model


def session_of(model: MatchingModel, precision: Precision = "fp32") -> Session:
    chain = MatchingFamily().chain(model, precision)
    check_wiring(chain)
    return Session(chain, TorchBackend(chain))


def frames_of(model: MatchingModel, count: int) -> list[np.ndarray]:
    return [speckle(model.config.image_size, model.config.channels, i) for i in range(count)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_stages_compute_what_the_model_does(variant: str) -> None:
    model = model_of(VARIANTS[variant])
    session, oracle = session_of(model), MatchingFamily().oracle(model)
    source, reference, *frames = frames_of(model, 4)
    oracle.set_source(source, reference)
    session.set_source(to_planes(source))
    session.set_reference(to_planes(reference))
    for name, value in AWAY.items():
        session.set_control(name, value)
    for frame in frames:
        wanted = oracle.animate(frame, AWAY)
        found = session.animate(to_planes(frame))
        assert levels_apart(found, wanted["frame"]) <= 1
        assert wanted.keys() >= session.chain.tensors().keys()
        for name in session.chain.tensors().keys() - {"frame", "state"}:
            value = session.read(name)
            assert (value.dtype, value.shape) == (wanted[name].dtype, wanted[name].shape), name
            error = np.abs(value.astype(np.float64) - wanted[name]).max()
            assert error <= 1e-4 * max(1, np.abs(wanted[name]).max()), name


def test_smoothing_calms_motion_and_light() -> None:
    model = model_of()
    session = session_of(model)
    source, *frames = (to_planes(frame) for frame in frames_of(model, 3))

    def steps() -> list[float]:
        session.set_source(source)
        session.set_reference(source)
        made = []
        for frame in frames:
            session.animate(frame)
            made.append([session.read(name) for name in ("displacement", "shading")])
        return [float(np.abs(b - a).mean()) for a, b in zip(*made, strict=True)]

    lively = steps()
    for name, value in CALM.items():
        session.set_control(name, value)
    calm = steps()
    assert all(slow < 0.05 * fast for slow, fast in zip(calm, lively, strict=True))


def test_an_alignment_moves_where_motion_is_read() -> None:
    model = model_of()
    session = session_of(model)
    source, frame = (to_planes(frame) for frame in frames_of(model, 2))
    session.set_source(source)
    session.set_reference(source)

    def displacement() -> np.ndarray:
        session.animate(frame)
        return session.read("displacement")

    plain, own = displacement(), own_places(16, 16)
    session.align(own)
    assert np.array_equal(displacement(), plain)
    session.align(own + np.array([2 / 16, 0], np.float32))
    assert np.allclose(displacement()[:, :, :-1], plain[:, :, 1:], atol=1e-5)
    session.align(None)
    assert np.array_equal(displacement(), plain)


def test_only_source_and_observe_see_pixels() -> None:
    stages = MatchingFamily().chain(model_of()).stages
    takes = {s.name: [t.name for t in s.inputs if t.dtype == "uint8"] for s in stages}
    pixels = {"source": ["source_image"], "observe": ["driving_frame"]}
    assert takes == {"transfer": [], "motion": [], "generator": []} | pixels


def test_half_precision_is_for_convolutions_and_what_they_make() -> None:
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    session = session_of(model, "fp16")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    tensors = session.chain.tensors()
    half = {name for name, tensor in tensors.items() if tensor.dtype == "float16"}
    seen = {f"{who}_{what}" for who in ("driving", "reference") for what in ("fine", "coarse")}
    assert half == {"source_feature"} | seen
    for stage in session.chain.stages:
        for module in stage.module.modules():
            kind = torch.float16 if isinstance(module, nn.Conv2d) else torch.float32
            own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            assert all(x.dtype == kind for x in own if x.is_floating_point())
    whole, made = session_of(model), []
    source, frame = (to_planes(frame) for frame in frames_of(model, 2))
    for each in (session, whole):
        each.set_source(source)
        each.set_reference(source)
        made.append(each.animate(frame).copy())
    assert psnr(*made) > 45
