"""Which frames make a training pair: pure in (seed, step), balanced by group and subject."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonomime.runtime.support.errors import ConfigError, InputError
from sonomime.training.config import DataConfig
from sonomime.training.data.pairs import PairSampler

from .made_clips import PLAIN, SIZE, assert_same, flat, make_clip, smooth


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


def test_a_single_frame_makes_synthetic_pairs() -> None:
    batch = PairSampler([make_clip(smooth(1))], PLAIN, 0, batch_size=2).batch(0)
    assert not torch.equal(batch.source, batch.driving)


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


def test_synthetic_pairs_stop_at_their_step() -> None:
    data = replace(PLAIN, synthetic=1.0, synthetic_until=5)
    sampler = PairSampler([flat([40, 200])], data, 0, batch_size=4)
    centre = np.s_[:, 0, SIZE // 2, SIZE // 2]
    before, after = sampler.batch(4), sampler.batch(5)
    assert torch.equal(before.source[centre], before.driving[centre])
    assert ((after.source[centre] - after.driving[centre]).abs() > 0.5).all()
