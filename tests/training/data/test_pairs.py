"""Pairs: pure in (seed, step), balanced; one map for frames, labels and flow; prepared ahead."""

from __future__ import annotations

import threading
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from sonomime.runtime.support.errors import InputError
from sonomime.training.config import DataConfig, LossConfig
from sonomime.training.coordinates import points_to_pixels
from sonomime.training.data import pairs as pairs_module
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.clip_frames import ClipFrames
from sonomime.training.data.pairs import AHEAD, PairSampler, prefetched
from sonomime.training.data.transforms import random_bend
from sonomime.training.models.geometry import warp

from .clips import MOVED, PLAIN, SIZE, assert_same, draw, flat, make_clip, point_grid, smooth


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_pairs_are_the_frames_themselves(channels: int) -> None:
    shape = (2, SIZE, SIZE) if channels == 1 else (2, SIZE, SIZE, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape)
    batch = draw(make_clip(frames), PLAIN, 3)
    assert batch.source.shape == batch.driving.shape == (3, channels, SIZE, SIZE)
    assert batch.source.dtype == torch.float32 and batch.source.is_contiguous()
    assert batch.source_points.shape == (3, 0, 2)
    assert batch.source_visible.dtype == torch.bool
    assert batch.flow is batch.flow_valid is batch.flow_exact is None
    planes = frames.reshape(2, SIZE, SIZE, channels).transpose(0, 3, 1, 2)
    for pair in zip(batch.source, batch.driving, strict=True):
        images = [np.round(image.numpy() * 255) for image in pair]
        assert {t for t in (0, 1) for i in images if np.array_equal(i, planes[t])} == {0, 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"synthetic": 0.5, "flow": "dis"},
        {"synthetic": 0.5, "speckle": 0.2, "light": 0.3, "blackout": 1.0},
    ],
)
def test_a_batch_depends_on_seed_and_step_alone(changes: dict[str, object]) -> None:
    clips = [make_clip(smooth(6, seed=i), name=str(i)) for i in range(3)]
    data = replace(DataConfig(), **changes)  # type: ignore[arg-type]
    sampler = PairSampler(clips, data, 5, batch_size=2)
    batches = [sampler.batch(step) for step in range(3)]
    assert_same(draw(clips, data, 2, step=2, seed=5), batches[2])
    assert_same(sampler.batch(0), batches[0])
    assert not torch.equal(draw(clips, data, 2, seed=6).source, batches[0].source)
    assert not torch.equal(batches[1].source, batches[0].source)


@pytest.mark.parametrize("groups", [("many", "one"), ("g", "g")], ids=["groups", "subjects"])
def test_groups_and_subjects_weigh_alike_however_many_clips_they_have(
    groups: tuple[str, str],
) -> None:
    many = [flat([20, 21], name=f"m{i}", group=groups[0], subject="often") for i in range(9)]
    one = flat([200, 201], name="one", group=groups[1], subject="once")
    bright = draw([*many, one], PLAIN, 400).source.amax((1, 2, 3)) > 0.5
    assert 0.42 < bright.float().mean() < 0.58


def test_pairs_are_of_the_whole_clip_in_either_order() -> None:
    batch = draw(flat(range(100)), PLAIN, 200)
    difference = (batch.source - batch.driving).mean((1, 2, 3)) * 255
    assert (difference != 0).all() and difference.max() > 80 and difference.min() < -80


def test_synthetic_pairs_are_marked_and_have_their_share() -> None:
    assert 10 < draw(make_clip(smooth(6)), replace(PLAIN, synthetic=0.5), 40).bent.sum() < 30


# -- labels ----------------------------------------------------------------------------------------


def labelled_clips() -> list[ClipFrames]:
    """Two labelled frames among forty, and a group without labels."""
    visible = np.zeros((20, 2), np.bool_)
    visible[[3, 11], 0] = True
    points = np.zeros((20, 2, 2))
    points[3, 0], points[11, 0] = (0.25, 0.5), (-0.25, 0.5)
    none = {"points": 0 * points, "visible": visible & False}
    other = flat(range(100, 120), name="b", group="unlabelled", **none)
    return [flat(range(20), points=points, visible=visible), other]


def test_labels_are_preferred_within_their_group_alone() -> None:
    batch = draw(labelled_clips(), PLAIN, 480)
    levels = (batch.driving.mean((1, 2, 3)) * 255).round()
    seen = (levels == 3) | (levels == 11)
    assert torch.equal(batch.driving_visible, torch.stack([seen, seen & False], 1))
    assert (batch.driving_points[levels == 3, 0] == torch.tensor([0.25, 0.5])).all()
    assert (batch.driving_points[levels == 11, 0] == torch.tensor([-0.25, 0.5])).all()
    assert (batch.driving_points[~batch.driving_visible] == 0).all()
    assert 0.43 < (levels >= 100).float().mean() < 0.57  # the group without labels keeps its half
    assert 0.21 < seen.float().mean() < 0.34  # half of the other's, and two of its twenty frames
    for fraction, low, high in ((0.0, 0.0, 0.2), (1.0, 1.0, 1.0)):
        batch = draw(labelled_clips(), replace(PLAIN, labelled_fraction=fraction), 200)
        own = batch.driving.amax((1, 2, 3)) < 0.3
        assert low <= batch.driving_visible[own].any(1).float().mean() <= high


def test_absent_is_what_a_group_never_has_or_a_label_denies() -> None:
    one, none = labelled_clips()
    batch = draw([one, none], PLAIN, 100)
    unlabelled = batch.driving.amax((1, 2, 3)) * 255 >= 99
    assert batch.driving_absent[unlabelled].all()
    assert not batch.driving_absent[~unlabelled, 0].any()
    assert batch.driving_absent[~unlabelled, 1].all()
    # Where the group has the label elsewhere, only the frame's own label denies it.
    seen, says = one.visible.copy(), np.zeros((20, 2), np.bool_)
    seen[3, 1] = says[11, 1] = True
    batch = draw([replace(one, visible=seen, absent=says), none], PLAIN, 100)
    level = (batch.driving.amax((1, 2, 3)) * 255).round()
    assert batch.driving_absent[level == 11, 1].all() and (level == 11).any()
    others = (level != 11) & (level < 99)
    assert not batch.driving_absent[others].any() and others.any()


# -- pictures --------------------------------------------------------------------------------------


def blob(size: int, at: np.ndarray) -> np.ndarray:
    """A picture with a bright spot at (x, y) pixels."""
    away = ((np.mgrid[0:size, 0:size] - at[::-1, None, None]) ** 2).sum(0)
    return np.round(255 * np.exp(-away / (2 * 2.5**2)))


@pytest.mark.parametrize(("synthetic", "within"), [(0.0, 0.1), (1.0, 0.5)])
def test_keypoints_follow_the_augmentation(synthetic: float, within: float) -> None:
    size = 128
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (5, 1, 2))
    frames = [blob(size, at[0]) for at in points_to_pixels(points, size)]
    clip = make_clip(np.stack(frames), points=points)
    batch = draw(clip, replace(MOVED, synthetic=synthetic), 40)
    assert batch.source_visible.all() and batch.driving_visible.all()
    images = torch.cat([batch.source, batch.driving]).double().numpy()
    places = torch.cat([batch.source_points, batch.driving_points]).double()
    for (image,), point in zip(images, places, strict=True):
        centre = (image / image.sum() * np.mgrid[0:size, 0:size][::-1]).sum((1, 2))
        np.testing.assert_allclose(centre, points_to_pixels(point[0], size), atol=within)


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
    batch = draw(clip, replace(MOVED, synthetic=1.0, shift=0.3), 200, step=2)
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


def moving(count: int = 6, size: int = 128) -> ClipFrames:
    """Tissue that bends otherwise in each frame, and its exact displacement."""

    def places(side: int) -> np.ndarray:
        """Which tissue each frame shows at the centres of a grid of cells."""
        grid = point_grid(side).reshape(-1, 2)
        bends = [random_bend(np.random.default_rng(seed)) for seed in range(count)]
        return np.stack([bend.read(grid).reshape(side, side, 2) for bend in bends])

    x, y = np.moveaxis(places(size), -1, 0)
    waves = 35 * np.sin(9 * x + 4 * y) + 30 * np.cos(11 * y - 3 * x) + 20 * np.sin(7 * x)
    displacement = (places(size // 4) - point_grid(size // 4)).astype(np.float32)
    sector = np.zeros((size // 4, size // 4), np.bool_)
    sector[2:-3, 4:-2] = True
    clip = make_clip(np.round(128 + waves), name="moving")
    return replace(clip, displacement=displacement, sector=sector)


def without_rims(inside: torch.Tensor, reach: int, border: int) -> torch.Tensor:
    """Where all pixels within `reach` are inside, and the frame's border is not near."""
    inside = -torch.nn.functional.max_pool2d(-inside.float(), 2 * reach + 1, 1, reach) > 0
    inside[..., :border, :] = inside[..., -border:, :] = False
    inside[..., :border] = inside[..., -border:] = False
    return inside


@pytest.mark.parametrize("data", [PLAIN, MOVED], ids=["plain", "augmented"])
@pytest.mark.parametrize("bent", [True, False], ids=["bend", "exact"])
def test_the_source_warped_by_its_flow_is_the_driving_frame(bent: bool, data: DataConfig) -> None:
    clip = make_clip(smooth(3, size=128)) if bent else moving()
    batch = draw(clip, replace(data, synthetic=float(bent), flow="dis"), 12 if bent else 24)
    assert batch.flow is not None and batch.flow_valid is not None
    assert batch.flow_exact is not None and batch.flow_exact.all()
    assert batch.flow.shape == (*batch.flow_valid.shape, 2) == (len(batch.source), 32, 32, 2)
    valid = batch.flow_valid.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    warped = warp(batch.source, batch.flow, "half_pixel")
    # At the rims the enlarged flow mixes with what is not valid, and the warp with zeros outside; a
    # bend's flow of a quarter's size is cut short near black.
    shown = (warped > 0) & (batch.driving > 0)
    inside = valid & without_rims(shown, 6, 6) if bent else without_rims(valid, 4, 2)
    assert (inside if bent else valid).float().mean() > (0.3 if bent else 0.5)
    ratios = []
    for image, truth, hold, where in zip(warped, batch.driving, batch.source, inside, strict=True):
        gain = truth[where].sum() / image[where].sum()  # the two frames' own gains
        assert abs(gain - 1) < (0.15 if data is MOVED else 0.01)
        error = (gain * image - truth)[where].abs()
        assert error.mean() < 0.6 / 255
        assert not bent or error.max() < 6 / 255
        still = (hold - truth)[where].abs()
        assert bent or error.mean() < 0.2 * still.mean()
        ratios.append((error.mean(), still.mean()))
    errors, stills = np.mean(ratios, axis=0)  # some bends are so weak that both are rounding alone
    assert errors < 0.3 * stills


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


# -- prepared ahead --------------------------------------------------------------------------------


def test_batches_are_made_once_errors_come_at_their_step_and_the_thread_ends() -> None:
    sampler = PairSampler([make_clip(smooth(5))], DataConfig(synthetic=0.3), 3, batch_size=2)
    asked: list[int] = []

    def broken(step: int) -> PairBatch:
        asked.append(step)
        if step == 2:
            raise InputError(f"step {step}")
        return sampler.batch(step)

    before = set(threading.enumerate())
    with prefetched(broken) as batch:
        assert_same(batch(0), sampler.batch(0))
        assert_same(batch(1), sampler.batch(1))
        with pytest.raises(InputError, match="step 2"):
            batch(2)
        batch(3)
        assert asked[:4] == [0, 1, 2, 3]
        assert len(asked) == len(set(asked)) <= 4 + AHEAD
        for step in (9, 6, 6):  # out of order
            assert_same(batch(step), sampler.batch(step))
    assert set(threading.enumerate()) <= before


def test_shares_are_the_batch_and_several_threads_prepare_it() -> None:
    clips = [make_clip(smooth(6, seed=i), name=str(i)) for i in range(3)]
    data = DataConfig(synthetic=0.5, flow="dis")
    whole = PairSampler(clips, data, 5, batch_size=4)
    shares = [PairSampler(clips, data, 5, batch_size=4, pairs=pairs) for pairs in ([0, 1], [2, 3])]
    busy, met = threading.Barrier(3), []

    def together(step: int) -> PairBatch:
        if step < 3:
            met.append(busy.wait(timeout=30))  # passes only when three work at once
        return shares[0].batch(step)

    with prefetched(together, workers=3) as batch:
        for step in range(5):
            parts = [batch(step), shares[1].batch(step)]
            assert_same(PairBatch(*map(torch.cat, zip(*parts, strict=True))), whole.batch(step))
            for part, cut in zip(parts, whole.batch(step).parts(2), strict=True):
                assert_same(part, cut)
    assert len(met) == 3
