"""Training pairs: pure in (seed, step), balanced by group, one geometric map for everything."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.support.errors import ConfigError, InputError
from sonomime.training.config import DataConfig, LossConfig
from sonomime.training.coordinates import pixels_to_points, points_to_pixels
from sonomime.training.data import pairs as pairs_module
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.dataset import Clip, ClipFrames
from sonomime.training.data.pairs import PairSampler
from sonomime.training.data.prefetch import PrefetchSampler
from sonomime.training.models.geometry import warp

SIZE = 64
PLAIN = DataConfig(augment=False, synthetic=0.0, flow="none", near_steps=0)
MOVED = replace(PLAIN, augment=True, gain=(1, 1), gamma=(1, 1))


def make_clip(
    frames: np.ndarray,
    name: str = "a",
    group: str = "g",
    points: np.ndarray | None = None,
    visible: np.ndarray | None = None,
) -> ClipFrames:
    count = len(frames)
    if points is None:
        points = np.zeros((count, 0, 2), np.float32)
    if visible is None:
        visible = np.ones(points.shape[:2], np.bool_)
    names = tuple(f"k{i}" for i in range(points.shape[1]))
    size = frames.shape[1]
    return ClipFrames(
        Clip(name, Path(name), name, group, "train"),
        frames.astype(np.uint8),
        np.arange(count),
        points.astype(np.float32),
        visible,
        names,
        Letterbox.fit(size, size, size),
    )


def flat(levels: list[int], **kwargs: object) -> ClipFrames:
    """A clip whose frames say which they are: each is of one grey level."""
    frames = np.ones((len(levels), SIZE, SIZE)) * np.array(levels)[:, None, None]
    return make_clip(frames, **kwargs)  # type: ignore[arg-type]


def smooth(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Smooth random images, so that interpolation costs next to nothing."""
    rng = np.random.default_rng(seed)
    at = np.linspace(0, 2 * np.pi, size)
    images = np.zeros((count, size, size))
    for image in images:
        for _ in range(6):
            kx, ky = rng.integers(1, 4, 2)
            a, b = rng.uniform(0, 2 * np.pi, 2)
            image += np.outer(np.sin(ky * at + a), np.sin(kx * at + b))
    return np.round(128 + 20 * images).clip(40, 220)


def blobs(points: np.ndarray, size: int) -> np.ndarray:
    """A frame with one blob for each of ``points`` (T, 2)."""
    rows, columns = np.mgrid[0:size, 0:size]
    frames = []
    for x, y in points_to_pixels(points, size):
        frames.append(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.5**2)))
    return np.round(np.stack(frames))


def centre(image: torch.Tensor) -> np.ndarray:
    weights = (image / image.sum()).double().numpy()
    rows, columns = np.mgrid[0 : weights.shape[0], 0 : weights.shape[1]]
    return np.array([(weights * columns).sum(), (weights * rows).sum()])


def interior(images: torch.Tensor, margin: int = 6) -> torch.Tensor:
    """Pixels away from black and from the border, where a flow of a quarter's size is cut short."""
    inside = torch.nn.functional.max_pool2d(-images, 2 * margin + 1, 1, margin) < 0
    inside[..., :margin, :] = inside[..., -margin:, :] = False
    inside[..., :margin] = inside[..., -margin:] = False
    return inside


def assert_same(one: PairBatch, other: PairBatch) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.equal(a, b)


def test_plain_pairs_are_the_frames_themselves() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE))
    batch = PairSampler([make_clip(frames)], PLAIN, 0, batch_size=3).batch(0)
    assert batch.source.shape == batch.driving.shape == (3, 1, SIZE, SIZE)
    assert batch.source.dtype == torch.float32
    assert batch.source_points.shape == (3, 0, 2)
    assert batch.source_visible.dtype == torch.bool
    assert batch.flow is None
    assert batch.flow_valid is None
    for source, driving in zip(batch.source, batch.driving, strict=True):
        found = {
            t
            for t in (0, 1)
            for image in (source, driving)
            if np.array_equal(np.round(image[0].numpy() * 255), frames[t])
        }
        assert found == {0, 1}


def test_colour_is_channels_first() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3))
    data = replace(PLAIN, synthetic=0.5, flow="dis")
    sampler = PairSampler([make_clip(frames)], data, 0, batch_size=6)
    batch = sampler.batch(0)
    assert batch.source.shape == batch.driving.shape == (6, 3, SIZE, SIZE)
    assert batch.source.is_contiguous()
    first = np.round(batch.source[0].permute(1, 2, 0).numpy() * 255)
    assert any(np.array_equal(first, frame) for frame in frames)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    clips = [make_clip(smooth(6, seed=i), name=str(i)) for i in range(3)]
    data = DataConfig(synthetic=0.5, flow="dis", near_start=2, near_steps=10)
    sampler = PairSampler(clips, data, 5, batch_size=2)
    batches = [sampler.batch(step) for step in range(3)]
    resumed = PairSampler(clips, data, 5, batch_size=2)
    assert_same(resumed.batch(2), batches[2])
    assert_same(sampler.batch(0), batches[0])
    other = PairSampler(clips, data, 6, batch_size=2)
    assert not torch.equal(other.batch(0).source, batches[0].source)
    assert not torch.equal(batches[1].source, batches[0].source)


def test_groups_weigh_alike_however_many_clips_they_have() -> None:
    many = [flat([20, 21], name=f"m{i}", group="many") for i in range(9)]
    sampler = PairSampler([*many, flat([200, 201], group="one")], PLAIN, 0, batch_size=50)
    bright = torch.cat([sampler.batch(step).source.amax((1, 2, 3)) > 0.5 for step in range(8)])
    assert 0.42 < bright.float().mean() < 0.58


def test_subjects_of_a_group_weigh_alike_however_many_clips_they_have() -> None:
    often = [flat([20, 21], name=f"m{i}") for i in range(9)]
    often = [replace(clip, clip=replace(clip.clip, subject="often")) for clip in often]
    sampler = PairSampler([*often, flat([200, 201], name="once")], PLAIN, 0, batch_size=50)
    bright = torch.cat([sampler.batch(step).source.amax((1, 2, 3)) > 0.5 for step in range(8)])
    assert 0.42 < bright.float().mean() < 0.58


def test_pairs_are_two_different_frames_in_either_order() -> None:
    sampler = PairSampler([flat([0, 100, 200])], PLAIN, 0, batch_size=60)
    batch = sampler.batch(0)
    difference = (batch.source - batch.driving).mean((1, 2, 3))
    assert (difference != 0).all()
    assert (difference > 0).any()
    assert (difference < 0).any()


def test_near_pairs_first_then_the_whole_clip() -> None:
    data = replace(PLAIN, near_start=3, near_steps=100)
    sampler = PairSampler([flat(list(range(100)))], data, 0, batch_size=200)

    def farthest(step: int) -> float:
        batch = sampler.batch(step)
        return float(((batch.source - batch.driving) * 255).abs().max())

    assert farthest(0) == pytest.approx(3, abs=1e-3)
    assert 40 < farthest(50) < 52
    assert farthest(100) > 80
    assert PairSampler([flat([0, 9])], data, 0, batch_size=1).batch(0).source.shape[0] == 1


@pytest.mark.parametrize("synthetic", [0.0, 1.0])
def test_keypoints_follow_the_augmentation(synthetic: float) -> None:
    size = 128
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (5, 1, 2))
    clip = make_clip(blobs(points[:, 0], size), points=points)
    data = replace(MOVED, synthetic=synthetic)
    sampler = PairSampler([clip], data, 0, batch_size=20)
    batch = sampler.batch(0)
    assert batch.source_visible.all()
    assert batch.driving_visible.all()
    for image, point in (
        *zip(batch.source, batch.source_points, strict=True),
        *zip(batch.driving, batch.driving_points, strict=True),
    ):
        expected = points_to_pixels(point[0].double(), size).numpy()
        np.testing.assert_allclose(centre(image[0]), expected, atol=0.5 if synthetic else 0.1)


def test_both_frames_share_one_geometric_map() -> None:
    """Two frames that are one image stay one image, whatever the augmentation."""
    frames = np.repeat(smooth(1), 2, axis=0)
    batch = PairSampler([make_clip(frames)], MOVED, 0, batch_size=8).batch(0)
    # The gains differ by some two per cent: that part is independent.
    ratio = batch.source.sum((1, 2, 3)) / batch.driving.sum((1, 2, 3))
    assert ratio.sub(1).abs().max() < 0.15
    shape_s, shape_d = batch.source > 0, batch.driving > 0
    assert torch.equal(shape_s, shape_d)


def test_gain_and_gamma_vary_together() -> None:
    clip = flat([128, 128, 128])
    data = replace(MOVED, scale=(1, 1), shift=0.0, rotation=0.0, gain=(0.5, 1.5), gamma=(0.8, 1.25))
    batch = PairSampler([clip], data, 0, batch_size=60).batch(0)
    source, driving = batch.source.mean((1, 2, 3)), batch.driving.mean((1, 2, 3))
    assert source.std() > 0.05
    assert (source / driving - 1).abs().max() < 0.15
    assert torch.corrcoef(torch.stack([source, driving]))[0, 1] > 0.95


def test_keypoints_that_leave_the_frame_are_not_visible() -> None:
    points = np.full((2, 2, 2), 0.0)
    points[:, 1] = 0.97
    clip = make_clip(smooth(2), points=points)
    batch = PairSampler([clip], replace(MOVED, shift=0.3), 0, batch_size=40).batch(0)
    assert batch.driving_visible[:, 0].all()
    gone = ~batch.driving_visible[:, 1]
    assert gone.any()
    assert not gone.all()
    assert (batch.driving_points[:, 1][gone] == 0).all()
    assert (batch.driving_points.abs() <= 1).all()
    assert batch.driving_absent is not None and batch.source_absent is not None
    assert torch.equal(batch.driving_absent, ~batch.driving_visible)
    assert torch.equal(batch.source_absent, ~batch.source_visible)


def test_a_bend_may_bring_back_a_keypoint_that_left_the_source() -> None:
    clip = make_clip(smooth(2), points=np.full((2, 1, 2), 0.97))
    data = replace(MOVED, synthetic=1.0, shift=0.3)
    batch = PairSampler([clip], data, 0, batch_size=100).batch(0)
    assert batch.driving_absent is not None
    back = batch.driving_visible & ~batch.source_visible
    assert back.any()
    assert not batch.driving_absent[back].any()
    assert (batch.driving_points[back] > 0.5).any()


def test_synthetic_flow_is_the_deformation() -> None:
    """The source warped by the target IS the driving frame, as the models warp."""
    clip = make_clip(smooth(3, size=128))
    data = replace(MOVED, synthetic=1.0, flow="dis")
    batch = PairSampler([clip], data, 0, batch_size=12).batch(0)
    assert batch.flow is not None
    assert batch.flow_valid is not None
    assert batch.flow.shape == (12, 32, 32, 2)
    assert batch.flow_valid.shape == (12, 32, 32)
    warped = warp(batch.source, batch.flow, "half_pixel")
    valid = batch.flow_valid.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    inside = valid & interior(warped) & interior(batch.driving)
    assert inside.float().mean() > 0.3
    for image, truth, hold, where in zip(warped, batch.driving, batch.source, inside, strict=True):
        gain = truth[where].sum() / image[where].sum()  # the two frames' own gains
        assert abs(gain - 1) < 0.15
        error = (gain * image - truth)[where].abs()
        assert error.mean() < 0.6 / 255
        assert error.max() < 6 / 255
        assert error.mean() < 0.3 * (hold - truth)[where].abs().mean()


def test_synthetic_flow_is_exact_without_augmentation() -> None:
    clip = make_clip(smooth(3, size=128))
    data = replace(PLAIN, synthetic=1.0, flow="dis")
    batch = PairSampler([clip], data, 0, batch_size=8).batch(0)
    assert batch.flow is not None
    warped = warp(batch.source, batch.flow, "half_pixel")
    inside = interior(warped) & interior(batch.driving)
    error = (warped - batch.driving).abs()[inside]
    assert error.max() < 6 / 255
    assert error.mean() < 0.6 / 255


def test_real_flow_is_measured_and_masked() -> None:
    clip = make_clip(smooth(2, size=128))
    batch = PairSampler([clip], replace(PLAIN, flow="dis"), 0, batch_size=2).batch(0)
    assert batch.flow is not None
    assert batch.flow_valid is not None
    assert batch.flow.shape == (2, 32, 32, 2)
    assert batch.flow.dtype == torch.float32
    assert batch.flow_valid.dtype == torch.bool


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
    batch = PairSampler([moving()], data, 0, batch_size=24).batch(0)
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


def test_no_flow_means_no_exact_flow_either() -> None:
    batch = PairSampler([moving()], PLAIN, 0, batch_size=4).batch(0)
    assert batch.flow is batch.flow_valid is batch.flow_exact is None


def test_a_bend_keeps_its_own_flow() -> None:
    data = replace(PLAIN, synthetic=1.0, flow="dis")
    known = moving()
    plain = replace(known, displacement=None, sector=None)
    one, other = (PairSampler([clip], data, 0, batch_size=4).batch(0) for clip in (known, plain))
    assert one.flow_exact is not None
    assert one.flow_exact.all()
    assert_same(one, other)


def test_batches_with_exact_flow_depend_on_seed_and_step_alone() -> None:
    loss = {"flow": 1.0, "flow_until": 3, "flow_exact": 0.5}
    sampler = mixed(**loss)
    batches = [sampler.batch(step) for step in range(6)]
    for step in (5, 2, 3):
        assert_same(mixed(**loss).batch(step), batches[step])


def test_a_single_frame_makes_synthetic_pairs() -> None:
    batch = PairSampler([make_clip(smooth(1))], PLAIN, 0, batch_size=2).batch(0)
    assert not torch.equal(batch.source, batch.driving)


def labelled_clips() -> list[ClipFrames]:
    """Two labelled frames among forty, and a group without labels."""
    visible = np.zeros((20, 2), np.bool_)
    visible[[3, 11], 0] = True
    points = np.zeros((20, 2, 2))
    points[3, 0], points[11, 0] = (0.25, 0.5), (-0.25, 0.5)
    one = flat(list(range(20)), points=points, visible=visible)
    none = flat(
        list(range(100, 120)),
        name="b",
        group="unlabelled",
        points=np.zeros((20, 2, 2)),
        visible=np.zeros((20, 2), np.bool_),
    )
    return [one, none]


def test_labels_are_preferred_within_their_group_alone() -> None:
    sampler = PairSampler(labelled_clips(), PLAIN, 0, batch_size=8)
    labelled = bright = 0
    for step in range(60):
        batch = sampler.batch(step)
        for image, points, visible in zip(
            batch.driving, batch.driving_points, batch.driving_visible, strict=True
        ):
            level = round(float(image.mean()) * 255)
            assert visible.tolist() == [level in (3, 11), False]
            if visible[0]:
                assert points[0].tolist() == [0.25 if level == 3 else -0.25, 0.5]
            assert (points[~visible] == 0).all()
            labelled += bool(visible[0])
            bright += level >= 100
    assert 0.43 < bright / 480 < 0.57  # the group without labels keeps its half
    assert 0.21 < labelled / 480 < 0.34  # half of the other's, and two of its twenty frames


@pytest.mark.parametrize(("fraction", "low", "high"), [(0.0, 0.0, 0.2), (1.0, 1.0, 1.0)])
def test_labelled_fraction_at_its_ends(fraction: float, low: float, high: float) -> None:
    data = replace(PLAIN, labelled_fraction=fraction)
    sampler = PairSampler(labelled_clips(), data, 0, batch_size=200)
    batch = sampler.batch(0)
    own = batch.driving.amax((1, 2, 3)) < 0.3
    share = batch.driving_visible[own].any(1).float().mean()
    assert low <= share <= high


def test_a_group_labelled_throughout_takes_no_more_than_its_share() -> None:
    one, none = labelled_clips()
    full = replace(one, visible=np.ones((20, 2), np.bool_))
    rest = [replace(none, clip=replace(none.clip, group=g)) for g in ("lung", "muscle")]
    sampler = PairSampler([full, *rest], PLAIN, 0, batch_size=4)
    labelled = [sampler.batch(step).driving_visible.any(1) for step in range(300)]
    assert 0.30 < torch.cat(labelled).float().mean() < 0.37
    assert np.mean([bool(seen.any()) for seen in labelled]) > 0.5


def test_absent_is_what_a_group_never_has_or_a_label_denies() -> None:
    one, none = labelled_clips()
    says = np.zeros((20, 2), np.bool_)
    says[11, 1] = True
    batch = PairSampler([one, none], PLAIN, 0, batch_size=100).batch(0)
    assert batch.driving_absent is not None
    unlabelled = batch.driving.amax((1, 2, 3)) * 255 >= 99
    assert batch.driving_absent[unlabelled].all()
    assert not batch.driving_absent[~unlabelled, 0].any()
    assert batch.driving_absent[~unlabelled, 1].all()
    # Where the group has the label elsewhere, only the frame's own label denies it.
    seen = one.visible.copy()
    seen[3, 1] = True
    clip = replace(one, visible=seen, absent=says)
    batch = PairSampler([clip, none], PLAIN, 0, batch_size=100).batch(0)
    assert batch.driving_absent is not None
    level = (batch.driving.amax((1, 2, 3)) * 255).round()
    assert batch.driving_absent[level == 11, 1].all() and (level == 11).any()
    others = (level != 11) & (level < 99)
    assert not batch.driving_absent[others].any() and others.any()


def test_where_every_frame_is_labelled_nothing_is_preferred() -> None:
    clips = [flat([10, 20, 30], points=np.zeros((3, 1, 2))), flat([1, 2, 3], name="b", group="h")]
    clips[1] = replace(
        clips[1],
        points=np.zeros((3, 1, 2), np.float32),
        visible=np.ones((3, 1), np.bool_),
        keypoint_names=("k0",),
    )
    data = replace(PLAIN, labelled_fraction=1.0)
    assert_same(
        PairSampler(clips, data, 0, batch_size=4).batch(0),
        PairSampler(clips, replace(data, labelled_fraction=0.0), 0, batch_size=4).batch(0),
    )


def test_clips_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(InputError, match="no clip"):
        PairSampler([], PLAIN, 0, batch_size=1)
    small = make_clip(np.zeros((2, 32, 32)), name="small")
    with pytest.raises(InputError, match="'small'"):
        PairSampler([flat([1, 2]), small], PLAIN, 0, batch_size=1)


@pytest.mark.parametrize(
    "change",
    [
        {"synthetic": 1.5},
        {"labelled_fraction": -0.1},
        {"scale": (1.2, 0.8)},
        {"gain": (0, 1)},
        {"near_start": 0},
        {"shift": -0.1},
    ],
)
def test_settings_out_of_range_are_config_errors(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"data.{next(iter(change))}"):
        PairSampler([flat([1, 2])], replace(PLAIN, **change), 0, batch_size=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size"):
        PairSampler([flat([1, 2])], PLAIN, 0, batch_size=0)


def test_prefetching_changes_nothing() -> None:
    sampler = PairSampler([make_clip(smooth(5))], DataConfig(synthetic=0.3), 3, batch_size=2)
    with PrefetchSampler(sampler) as ahead:
        for step in (4, 5, 6, 7, 2, 3, 9, 9):
            assert_same(ahead.batch(step), sampler.batch(step))


class Broken:
    """Fails at one step, and remembers what it was asked for."""

    def __init__(self, sampler: PairSampler, at: int) -> None:
        self.sampler = sampler
        self.at = at
        self.asked: list[int] = []

    def batch(self, step: int) -> PairBatch:
        self.asked.append(step)
        if step == self.at:
            raise InputError(f"step {step}")
        return self.sampler.batch(step)


def test_an_error_arrives_at_its_own_step() -> None:
    broken = Broken(PairSampler([flat([1, 2])], PLAIN, 0, batch_size=1), at=2)
    with PrefetchSampler(broken) as ahead:
        ahead.batch(0)
        ahead.batch(1)
        with pytest.raises(InputError, match="step 2"):
            ahead.batch(2)
        ahead.batch(3)


def test_opencvs_threads_are_left_alone() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        sampler = PairSampler(
            [make_clip(smooth(4))], replace(PLAIN, flow="dis"), seed=0, batch_size=1
        )
        assert sampler.batch(0).flow is not None
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_batches_are_prepared_ahead_and_the_thread_ends() -> None:
    broken = Broken(PairSampler([flat([1, 2])], PLAIN, 0, batch_size=1), at=-1)
    before = set(threading.enumerate())
    ahead = PrefetchSampler(broken, depth=2)
    ahead.batch(0)
    ahead.batch(1)
    ahead.close()
    ahead.close()
    assert broken.asked[:2] == [0, 1]
    assert len(broken.asked) == len(set(broken.asked)) <= 4
    assert set(threading.enumerate()) <= before


def test_synthetic_pairs_stop_at_their_step() -> None:
    data = replace(PLAIN, synthetic=1.0, synthetic_until=5)
    sampler = PairSampler([flat([40, 200])], data, 0, batch_size=4)
    centre = np.s_[:, 0, SIZE // 2, SIZE // 2]
    before, after = sampler.batch(4), sampler.batch(5)
    assert torch.equal(before.source[centre], before.driving[centre])
    assert ((after.source[centre] - after.driving[centre]).abs() > 0.5).all()


LOOKS = {"speckle": 0.2, "light": 0.3, "blackout": 1.0}


def looks(synthetic: float, **changed: float) -> PairBatch:
    data = replace(PLAIN, synthetic=synthetic, flow="dis", **changed)
    return PairSampler([make_clip(smooth(6))], data, 0, batch_size=4).batch(0)


def test_bends_are_marked() -> None:
    for synthetic in (0.0, 1.0):
        bent = looks(synthetic).bent
        assert bent is not None
        assert bent.dtype == torch.bool and bent.tolist() == [synthetic == 1] * 4
    sampler = PairSampler([make_clip(smooth(6))], replace(PLAIN, synthetic=0.5), 0, batch_size=40)
    bent = sampler.batch(0).bent
    assert bent is not None and 10 < bent.sum() < 30


def test_only_bends_get_other_looks() -> None:
    for x, y in zip(looks(0.0, **LOOKS)[:2], looks(0.0)[:2], strict=True):
        assert torch.equal(x[0], y[0])  # of later pairs the generator draws other ones
    changed, plain = looks(1.0, **LOOKS), looks(1.0)
    assert not torch.equal(changed.source[0], plain.source[0])
    assert (changed.driving[0] == 0).sum() > (plain.driving[0] == 0).sum() + 8
    assert changed.flow is not None and plain.flow is not None
    assert torch.equal(changed.flow[0], plain.flow[0])
    for images in changed[:2]:
        assert images.dtype == torch.float32 and 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize(
    ("change", "untouched"),
    [({"speckle": 0.2}, True), ({"blackout": 1.0}, True), ({"light": 0.3}, False)],
)
def test_speckle_and_shadows_change_the_driving_frame_alone(
    change: dict[str, float], untouched: bool
) -> None:
    changed, plain = looks(1.0, **change), looks(1.0)
    assert torch.equal(changed.source[0], plain.source[0]) == untouched
    assert not torch.equal(changed.driving[0], plain.driving[0])


def test_batches_with_other_looks_depend_on_seed_and_step_alone() -> None:
    data = replace(PLAIN, synthetic=0.5, **LOOKS)
    clip = make_clip(smooth(6))
    batches = [PairSampler([clip], data, 3, batch_size=3).batch(step) for step in range(4)]
    again = PairSampler([clip], data, 3, batch_size=3)
    for step in (3, 1, 0, 2):
        assert_same(again.batch(step), batches[step])
