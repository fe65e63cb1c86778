"""The stages of both families against the oracles; the pictures of a training."""

from __future__ import annotations

import copy
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lively import SMALL, SMALL_LITE, lively_checkpoint, noise, speckle
from torch import nn

from sonomime.runtime.bundle.checks import check_wiring
from sonomime.runtime.bundle.manifest import LANDMARK_IMAGE
from sonomime.runtime.media.pixels import to_planes
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.logbook import picture_grid
from sonomime.training.models.base import as_frame, normalised
from sonomime.training.models.families import family_of
from sonomime.training.models.keypoints import background_stages
from sonomime.training.models.keypoints import stages as keypoints
from sonomime.training.models.keypoints.motion import Down, Residual, Up
from sonomime.training.models.keypoints.rewrite import (
    PhaseConv,
    fold_batchnorm,
    folded,
    rewritten,
)
from sonomime.training.models.matching import family as matching
from sonomime.training.models.matching.transfer import Passed, put
from sonomime.training.models.monkey_net import family as monkey_net
from sonomime.training.models.one_euro import one_euro
from sonomime.training.torch_backend import open_session

from ..small_runs import pairs_of

AWAY = {"scale": 0.6, "shade": 0.7, "min_cutoff": 1.5, "beta": 10.0, "dt_seconds": 0.1}
FINDS = ("landmarks.count=2", "landmarks.width=8")
VARIANTS = [
    ("fomm", ("geometry=fomm_aligned", "channels=3")),
    ("fomm", ("geometry=fomm_unaligned",)),
    ("ours-p", ()),
    ("ours-pt", ("channels=3",)),
    ("ours-ptg", ("generator.bottleneck=split", "generator.fusion=pixel")),
    ("onuvs", ()),
    ("onuvs", ("motion.background=still", "generator.bottleneck=shared", "channels=3")),
    ("monkey-net", ()),
    ("monkey-net", ("channels=3", "generator.downs=4", "generator.blocks=1")),
    ("ours-ptg", ("generator.downs=3",)),
    ("lite", ("channels=3", "matcher.shading=0")),
    ("lite", ("image_size=64", "matcher.grid=8", "matcher.stiff=2", "matcher.shading=8", *FINDS)),
    ("lite", ("matcher.stiff=16", "matcher.shading=16", "corrector.blocks=0")),
]


def checkpoint_of(preset: str, *overrides: str) -> Checkpoint:
    small = SMALL_LITE if preset == "lite" else SMALL
    return lively_checkpoint(preset, (*small, *(f"model.{each}" for each in overrides)))


def assert_close(found: np.ndarray, wanted: np.ndarray, name: str) -> None:
    assert found.dtype == wanted.dtype and found.shape == wanted.shape, name
    bound = 1 if name == "frame" else 1e-4 * max(1, np.abs(wanted).max())
    assert np.abs(found.astype(np.float64) - wanted).max() <= bound, name


@pytest.mark.parametrize(("preset", "overrides"), VARIANTS)
@torch.no_grad()
def test_stages_compute_what_the_oracle_does(preset: str, overrides: tuple[str, ...]) -> None:
    """Every stage on the oracle's tensors, for three frames: in absolute and in smooth motion."""
    model = checkpoint_of(preset, *overrides).model()
    family, size = family_of(model.config), model.config.image_size
    before = copy.deepcopy(model.state_dict())
    chain = family.chain(model, names=("apex", "neck"))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    oracle = family.oracle(model)
    source, reference, *frames = (speckle(size, model.config.channels, i) for i in range(5))
    oracle.set_source(source, reference)
    for frame, away in zip(frames, ({"relative": 0.0}, AWAY, AWAY), strict=True):
        tensors = oracle.animate(frame, {k: v for k, v in away.items() if k in oracle.controls})
        assert tensors.keys() >= chain.tensors().keys()
        for stage in chain.stages:
            results = stage.module(*(torch.from_numpy(tensors[t.name]) for t in stage.inputs))
            for tensor, result in zip(stage.outputs, results, strict=True):
                assert (tensor.dtype, tensor.shape) == (str(result.dtype)[6:], result.shape)
                assert_close(result.numpy(), tensors[tensor.name], tensor.name)


@pytest.mark.parametrize(
    ("preset", "homes"),
    [
        ("ours-p", [keypoints]),
        ("onuvs", [keypoints, background_stages]),
        ("monkey-net", [monkey_net]),
        ("lite", [matching]),
    ],
)
def test_the_oracle_calls_no_stage(
    preset: str, homes: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would repeat the mistakes that an export has to find."""
    model = checkpoint_of(preset).model()
    family = family_of(model.config)
    names = {stage.name for stage in family.chain(model).stages}
    found = [(home, name) for home in homes for name in names if hasattr(home, name)]
    assert len(found) >= 4
    for home, name in found:
        monkeypatch.setattr(home, name, None)
    oracle = family.oracle(model)
    oracle.set_source(speckle(128), speckle(128, seed=1))
    assert oracle.animate(speckle(128, seed=2))["frame"].std() > 5


@torch.no_grad()
def test_lite_smooths_then_aligns_then_scales_and_finds_landmarks() -> None:
    checkpoint = checkpoint_of("lite", *FINDS)
    model, session = checkpoint.model(), open_session(checkpoint)
    check_wiring(session.chain)
    reference, *frames = (to_planes(speckle(128, seed=seed)) for seed in range(3))
    session.set_source(reference)
    session.set_reference(reference)
    alignment = torch.from_numpy(session.read("alignment")) * torch.tensor([0.7, 0.9]) + 0.1
    session.align(alignment.numpy())
    state = torch.from_numpy(session.read("state"))
    scale, shade, *smoothing = (torch.tensor([value]) for value in AWAY.values())
    seen, *driving = (
        model.matcher.encoder(normalised(torch.from_numpy(x))).unit() for x in (reference, *frames)
    )
    for frame, looked in zip(frames, driving, strict=True):
        for name, value in AWAY.items():
            session.set_control(name, value)
        session.animate(frame)
        _, found = model.match(looked, seen)
        (moved, light), state = one_euro((found.displacement, found.shading), state, *smoothing)
        wanted = put(Passed(moved, found.confidence, light), alignment, scale, shade)
        for name, tensor in wanted._asdict().items():
            assert_close(session.read(name), tensor.numpy(), name)
        assert_close(session.read("state"), state.numpy(), "state")
    found = model.landmarks.located(normalised(torch.from_numpy(frames[0])))
    assert_close(session.find_landmarks(frames[0]), found[0].numpy(), LANDMARK_IMAGE)
    # Without names there is nobody to look for.
    family = family_of(model.config)
    for names, count in ((("a", "b"), 2), ((), 0)):
        chain = family.chain(model, names=names)
        assert (len(chain.control.landmarks), len(chain.of_role("landmarks"))) == (
            count,
            count // 2,
        )


def test_half_precision_is_for_convolutions_and_what_they_make() -> None:
    model = checkpoint_of("lite", *FINDS).model()
    before = copy.deepcopy(model.state_dict())
    chain = family_of(model.config).chain(model.train(), "fp16")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    tensors = chain.tensors()
    half = {name for name, tensor in tensors.items() if tensor.dtype == "float16"}
    assert half == {"source_feature"}
    for stage in chain.stages:
        assert not any(own.requires_grad for own in stage.module.parameters())
        for module in stage.module.modules():
            assert not module.training
            kind = torch.float16 if isinstance(module, nn.Conv2d) else torch.float32
            own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            assert all(x.dtype == kind for x in own if x.is_floating_point())


def test_frames_on_the_wire() -> None:
    """Grey levels survive; what lies outside [0, 1] is clamped; halves round to even."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_frame(normalised(levels)), levels)
    assert as_frame(torch.tensor([-0.5, 1.5, 0.5 / 255, 1.5 / 255])).tolist() == [0, 255, 0, 2]


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_a_convolution_of_an_enlarged_picture_is_rewritten_exactly(factor: int) -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=factor != 3).double()
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    wanted = conv(F.interpolate(x, scale_factor=factor, mode="nearest"))
    for relu in (False, True):
        found = PhaseConv(conv, factor, relu)(x)
        torch.testing.assert_close(found, wanted.relu() if relu else wanted, rtol=0, atol=1e-12)


def test_rewrites_reach_their_layers() -> None:
    def split(module: nn.Module) -> int:
        return sum(isinstance(part, PhaseConv) for part in module.modules())

    large = checkpoint_of("ours-ptg", "image_size=256").model()
    fast = rewritten(large)
    # Of the hourglasses' five up blocks, those that read 32 and 16 pixels a side.
    assert split(fast.keypoint_detector) == split(fast.dense_motion) == 2
    # Of each decoder: the first block as one, the second's own and skip channels apart.
    assert split(fast.generator) == 2 * 3
    norms = [part for part in fast.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == large.config.generator.blocks  # the first of each residual block
    assert split(folded(large)) == 0
    # Of 9 taps for each of factor^2 pixels:
    for factor, taps in ((2, 16), (4, 25)):
        phases = PhaseConv(nn.Conv2d(1, 1, 3, padding=1), factor)
        assert sum(part.conv.weight.numel() for part in phases.convs) == taps


@torch.no_grad()
def test_batchnorm_becomes_part_of_convolutions() -> None:
    network = nn.Sequential(Down(3, 5), Up(5, 5), Residual(5)).eval().double()
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.1, 2)  # type: ignore[arg-type]
    x = noise(2, 3, 8, 12).double()
    wanted = network(x)
    fold_batchnorm(network)
    torch.testing.assert_close(network(x), wanted, rtol=0, atol=1e-12)
    (norm,) = (part for part in network.modules() if isinstance(part, nn.BatchNorm2d))
    # What cannot be folded is a scale and a shift; some versions of torch refuse 0.
    assert 0 < norm.eps < 1e-30 and not norm.running_mean.any() and (norm.running_var == 1).all()


@torch.no_grad()
def test_the_picture_grid_shows_what_was_found() -> None:
    pairs = pairs_of(*noise(2, 2, 3, 128, 128))
    models = (checkpoint_of("lite", "channels=3", *more).model() for more in ((), FINDS))
    shown, finds = (family_of(model.config).columns(model, pairs) for model in models)
    assert shown.points == {}
    assert [each.shape for each in finds.points.values()] == [(2, 2, 2)] * 2
    for name in ("displacement", "confidence", "shading", "folding"):
        assert 0 <= shown.images[name].min() <= shown.images[name].max() <= 1, name
    grid = picture_grid({k: v.numpy() for k, v in shown.images.items()}, {})
    assert grid.shape == (22 + 2 * 128, 9 * 128, 3)
    cells = zip(shown.images, np.split(grid[22:], 9, axis=1), strict=True)
    assert {name for name, cell in cells if cell.std() < 0.5} <= {"folding"}
