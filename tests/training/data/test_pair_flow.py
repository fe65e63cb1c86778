"""The flow of a pair: exact for a bend and where displacement is known, else measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonomime.training.config import DataConfig, LossConfig
from sonomime.training.coordinates import pixels_to_points
from sonomime.training.data import pairs as pairs_module
from sonomime.training.data.dataset import ClipFrames
from sonomime.training.data.pairs import PairSampler
from sonomime.training.models.geometry import warp

from .made_clips import MOVED, PLAIN, assert_same, draw, make_clip, smooth


def interior(images: torch.Tensor, margin: int = 6) -> torch.Tensor:
    """Pixels away from black and from the border, where a flow of a quarter's size is cut short."""
    inside = torch.nn.functional.max_pool2d(-images, 2 * margin + 1, 1, margin) < 0
    inside[..., :margin, :] = inside[..., -margin:, :] = False
    inside[..., :margin] = inside[..., -margin:] = False
    return inside


@pytest.mark.parametrize("data", [PLAIN, MOVED], ids=["plain", "augmented"])
def test_synthetic_flow_is_the_deformation(data: DataConfig) -> None:
    """The source warped by the target IS the driving frame, as the models warp."""
    batch = draw(make_clip(smooth(3, size=128)), replace(data, synthetic=1.0, flow="dis"), 12)
    assert batch.flow is not None and batch.flow_valid is not None
    assert batch.flow.shape == (12, 32, 32, 2)
    assert batch.flow_valid.shape == (12, 32, 32)
    warped = warp(batch.source, batch.flow, "half_pixel")
    valid = batch.flow_valid.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    inside = valid & interior(warped) & interior(batch.driving)
    assert inside.float().mean() > 0.3
    found = []
    for image, truth, hold, where in zip(warped, batch.driving, batch.source, inside, strict=True):
        gain = truth[where].sum() / image[where].sum()  # the two frames' own gains
        assert abs(gain - 1) < (0.15 if data is MOVED else 0.01)
        error = (gain * image - truth)[where].abs()
        assert error.mean() < 0.6 / 255
        assert error.max() < 6 / 255
        found.append((error.mean(), (hold - truth)[where].abs().mean()))
    errors, still = np.mean(found, axis=0)  # some bends are so weak that both are rounding alone
    assert errors < 0.3 * still


def wave(points: np.ndarray) -> np.ndarray:
    """A smooth picture of the plane, grey levels."""
    x, y = points[..., 0], points[..., 1]
    picture = 128 + 35 * np.sin(9 * x + 4 * y) + 30 * np.cos(11 * y - 3 * x) + 20 * np.sin(7 * x)
    return np.round(picture)


def moving(count: int = 6, size: int = 128) -> ClipFrames:
    """Tissue that shifts, turns, stretches and bends, and its exact displacement."""

    def place(t: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        line = pixels_to_points(np.arange(side, dtype=np.float64), side)
        grid = np.stack(np.meshgrid(line, line), axis=-1)
        angle = 0.04 * t
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        bend = 0.012 * t * np.sin(4 * grid[..., ::-1] + 1)
        return grid, grid @ turn.T * [1 + 0.02 * t, 1 - 0.01 * t] + [0.02 * t, 0] + bend

    clip = make_clip(np.stack([wave(place(t, size)[1]) for t in range(count)]), name="moving")
    fields = [place(t, size // 4) for t in range(count)]
    displacement = np.stack([to - at for at, to in fields]).astype(np.float32)
    displacement -= displacement[:1]
    sector = np.zeros((size // 4, size // 4), np.bool_)
    sector[2:-3, 4:-2] = True
    return replace(clip, displacement=displacement, sector=sector)


@pytest.mark.parametrize("data", [PLAIN, MOVED], ids=["plain", "augmented"])
def test_exact_flow_warps_the_source_onto_the_driving_frame(data: DataConfig) -> None:
    data = replace(data, flow="dis", near_start=9)
    batch = draw(moving(), data, 24)
    assert batch.flow is not None
    assert batch.flow_valid is not None
    assert batch.flow_exact is not None
    assert batch.flow_exact.all()
    assert batch.flow.shape == (24, 32, 32, 2)
    warped = warp(batch.source, batch.flow, "half_pixel")
    valid = batch.flow_valid.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    shares = valid.float().mean((1, 2, 3))
    assert shares.mean() > 0.5
    for image, truth, hold, where in zip(warped, batch.driving, batch.source, valid, strict=True):
        # Not the rims: of what is valid, where the enlarged flow mixes with what is not, and of
        # the frame, where the warp mixes with the zeros outside.
        where = -torch.nn.functional.max_pool2d(-where.float(), 9, 1, 4) > 0
        where[..., :2, :] = where[..., -2:, :] = False
        where[..., :2] = where[..., -2:] = False
        gain = truth[where].sum() / image[where].sum()
        error = (gain * image - truth)[where].abs()
        assert error.mean() < 0.6 / 255
        assert error.mean() < 0.2 * (hold - truth)[where].abs().mean()


def mixed(**loss: float) -> PairSampler:
    """Half of the pairs with exact flow, half with measured."""
    measured = make_clip(smooth(4, size=128), name="m", group="other")
    data = replace(MOVED, flow="dis")
    weights = LossConfig(**loss)  # type: ignore[arg-type]
    return PairSampler([moving(), measured], data, 0, batch_size=12, loss=weights)


def test_flow_is_computed_where_it_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    both = mixed(flow=1.0, flow_until=5)
    ended = mixed(flow=1.0, flow_until=5, doubt=0.0)
    kept = mixed(flow=1.0, flow_until=5, flow_exact=0.5, doubt=0.0)
    assert both.batch(4).flow_exact is not None
    measured: list[int] = []
    original = pairs_module.measured_flow

    def counted(*args: np.ndarray) -> object:
        measured.append(1)
        return original(*args)

    monkeypatch.setattr(pairs_module, "measured_flow", counted)
    batch = both.batch(3)
    assert batch.flow_exact is not None
    assert batch.flow_valid is not None
    assert len(measured) == int((~batch.flow_exact).sum()) > 0
    assert batch.flow_exact.any()
    assert batch.flow_valid.flatten(1).any(1).all()
    measured.clear()
    after = ended.batch(5)
    assert (after.flow, after.flow_valid, after.flow_exact) == (None, None, None)
    left = kept.batch(5)
    assert left.flow_exact is not None
    assert left.flow_valid is not None
    assert torch.equal(left.flow_valid.flatten(1).any(1), left.flow_exact)
    assert torch.equal(left.source, after.source)  # what is computed changes no draw
    assert torch.equal(left.driving, after.driving)
    assert measured == []
    assert both.batch(5).flow_valid is not None and measured  # how sure a match is, to the end
    assert mixed(flow=0.0).batch(0).flow is None
    assert_same(mixed(flow=1.0, flow_until=5).batch(3), batch)  # whatever was drawn before


def test_a_bend_keeps_its_own_flow() -> None:
    data = replace(PLAIN, synthetic=1.0, flow="dis")
    known = moving()
    plain = replace(known, displacement=None, sector=None)
    assert draw(known, PLAIN, 4).flow is None  # flow="none" means exact flow too
    one, other = (draw(clip, data, 4) for clip in (known, plain))
    assert one.flow_exact is not None
    assert one.flow_exact.all()
    assert_same(one, other)
