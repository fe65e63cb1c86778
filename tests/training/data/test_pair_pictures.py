"""What becomes of a pair: one map for frames, keypoints and flow; bends and their looks."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from sonomime.training.config import DataConfig, LossConfig
from sonomime.training.coordinates import points_to_pixels
from sonomime.training.data import pairs as pairs_module
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.clip_frames import ClipFrames
from sonomime.training.data.pairs import PairSampler
from sonomime.training.models.geometry import warp

from .made_clips import MOVED, PLAIN, assert_same, blob, centre, draw, make_clip, point_grid, smooth


@pytest.mark.parametrize(("synthetic", "within"), [(0.0, 0.1), (1.0, 0.5)])
def test_keypoints_follow_the_augmentation(synthetic: float, within: float) -> None:
    size = 128
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (5, 1, 2))
    frames = [blob((size, size), at[0], 2.5) for at in points_to_pixels(points, size)]
    batch = draw(
        make_clip(np.stack(frames), points=points), replace(MOVED, synthetic=synthetic), 40
    )
    assert batch.source_visible.all() and batch.driving_visible.all()
    images = torch.cat([batch.source, batch.driving]).double().numpy()
    places = torch.cat([batch.source_points, batch.driving_points]).double()
    for image, point in zip(images, places, strict=True):
        expected = points_to_pixels(point[0], size).numpy()
        np.testing.assert_allclose(centre(image[0]), expected, atol=within)


def test_both_frames_share_one_geometric_map_and_nearly_one_tone() -> None:
    """Two frames that are one image stay one image, whatever the augmentation."""
    frames = np.repeat(smooth(1), 2, axis=0)
    batch = draw(make_clip(frames), replace(MOVED, gain=(0.5, 1.5), gamma=(0.8, 1.25)), 60)
    assert torch.equal(batch.source > 0, batch.driving > 0)
    source, driving = batch.source.mean((1, 2, 3)), batch.driving.mean((1, 2, 3))
    assert source.std() > 0.05
    assert (source / driving - 1).abs().max() < 0.15
    assert torch.corrcoef(torch.stack([source, driving]))[0, 1] > 0.95


def test_keypoints_that_leave_the_frame_are_not_visible_unless_a_bend_brings_them_back() -> None:
    points = np.full((2, 2, 2), 0.0)
    points[:, 1] = 0.97
    clip = make_clip(smooth(2), points=points)
    batch = draw(clip, replace(MOVED, shift=0.3), 40)
    assert batch.driving_visible[:, 0].all()
    gone = ~batch.driving_visible[:, 1]
    assert gone.any() and not gone.all()
    assert (batch.driving_points[:, 1][gone] == 0).all()
    assert (batch.driving_points.abs() <= 1).all()
    assert torch.equal(batch.driving_absent, ~batch.driving_visible)
    assert torch.equal(batch.source_absent, ~batch.source_visible)
    batch = draw(clip, replace(MOVED, synthetic=1.0, shift=0.3), 100)
    back = batch.driving_visible & ~batch.source_visible
    assert back.any()
    assert not batch.driving_absent[back].any()
    assert (batch.driving_points[back] > 0.5).any()


@pytest.mark.parametrize("change", [{"speckle": 0.2}, {"blackout": 1.0}, {"light": 0.3}], ids=str)
def test_only_bends_get_other_looks(change: dict[str, float]) -> None:
    def looks(synthetic: float, **changed: float) -> PairBatch:
        data = replace(PLAIN, synthetic=synthetic, flow="dis", **changed)
        return draw(make_clip(smooth(6)), data, 4)

    # Of later pairs the generator draws other ones.
    for x, y in zip(looks(0.0, **change)[:2], looks(0.0)[:2], strict=True):
        assert torch.equal(x[0], y[0])
    changed, plain = looks(1.0, **change), looks(1.0)
    assert torch.equal(changed.source[0], plain.source[0]) == ("light" not in change)
    assert not torch.equal(changed.driving[0], plain.driving[0])
    assert changed.flow is not None and plain.flow is not None
    assert torch.equal(changed.flow[0], plain.flow[0])
    if "blackout" in change:
        assert (changed.driving[0] == 0).sum() > (plain.driving[0] == 0).sum() + 8


# -- flow ------------------------------------------------------------------------------------------


def without_rims(inside: torch.Tensor, reach: int, border: int) -> torch.Tensor:
    """Where all pixels within `reach` are inside, and the frame's border is not near."""
    inside = -torch.nn.functional.max_pool2d(-inside.float(), 2 * reach + 1, 1, reach) > 0
    inside[..., :border, :] = inside[..., -border:, :] = False
    inside[..., :border] = inside[..., -border:] = False
    return inside


def warped_and_valid(batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The source read through the flow, as the models warp, and where the flow is valid."""
    assert batch.flow is not None and batch.flow_valid is not None
    assert batch.flow.shape == (*batch.flow_valid.shape, 2) == (len(batch.source), 32, 32, 2)
    valid = batch.flow_valid.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    return warp(batch.source, batch.flow, "half_pixel"), valid


@pytest.mark.parametrize("data", [PLAIN, MOVED], ids=["plain", "augmented"])
def test_synthetic_flow_is_the_deformation(data: DataConfig) -> None:
    """The source warped by the target IS the driving frame."""
    batch = draw(make_clip(smooth(3, size=128)), replace(data, synthetic=1.0, flow="dis"), 12)
    warped, valid = warped_and_valid(batch)
    # Away from black, where a flow of a quarter's size is cut short.
    inside = valid & without_rims((warped > 0) & (batch.driving > 0), 6, 6)
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


def moving(count: int = 6, size: int = 128) -> ClipFrames:
    """Tissue that shifts, turns, stretches and bends, and its exact displacement."""

    def place(t: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        grid, angle = point_grid(side), 0.04 * t
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        bend = 0.012 * t * np.sin(4 * grid[..., ::-1] + 1)
        return grid, grid @ turn.T * [1 + 0.02 * t, 1 - 0.01 * t] + [0.02 * t, 0] + bend

    def picture(points: np.ndarray) -> np.ndarray:
        x, y = points[..., 0], points[..., 1]
        waves = 35 * np.sin(9 * x + 4 * y) + 30 * np.cos(11 * y - 3 * x) + 20 * np.sin(7 * x)
        return np.round(128 + waves)

    clip = make_clip(np.stack([picture(place(t, size)[1]) for t in range(count)]), name="moving")
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
    assert batch.flow_exact is not None and batch.flow_exact.all()
    warped, valid = warped_and_valid(batch)
    assert valid.float().mean() > 0.5
    # At the rims the enlarged flow mixes with what is not valid, and the warp with zeros outside.
    inside = without_rims(valid, 4, 2)
    for image, truth, hold, where in zip(warped, batch.driving, batch.source, inside, strict=True):
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
    measured = Mock(wraps=pairs_module.measured_flow)
    monkeypatch.setattr(pairs_module, "measured_flow", measured)
    batch = both.batch(3)
    assert batch.flow_exact is not None and batch.flow_valid is not None
    assert measured.call_count == int((~batch.flow_exact).sum()) > 0
    assert batch.flow_exact.any()
    assert batch.flow_valid.flatten(1).any(1).all()
    measured.reset_mock()
    after = ended.batch(5)
    assert (after.flow, after.flow_valid, after.flow_exact) == (None, None, None)
    left = kept.batch(5)
    assert left.flow_exact is not None and left.flow_valid is not None
    assert torch.equal(left.flow_valid.flatten(1).any(1), left.flow_exact)
    assert torch.equal(left.source, after.source)  # what is computed changes no draw
    assert torch.equal(left.driving, after.driving)
    assert not measured.called
    assert both.batch(5).flow is not None and measured.called  # how sure a match is, to the end
    assert mixed(flow=0.0).batch(0).flow is None


def test_a_bend_keeps_its_own_flow() -> None:
    data = replace(PLAIN, synthetic=1.0, flow="dis")
    known = moving()
    plain = replace(known, displacement=None, sector=None)
    assert draw(known, PLAIN, 4).flow is None  # flow="none" means exact flow too
    one, other = (draw(clip, data, 4) for clip in (known, plain))
    assert one.flow_exact is not None and one.flow_exact.all()
    assert_same(one, other)
