"""Which frames make a training pair: pure in (seed, step), balanced by group and subject."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonomime.runtime.support.errors import InputError
from sonomime.training.config import DataConfig
from sonomime.training.data.pairs import PairSampler

from .made_clips import PLAIN, SIZE, assert_same, draw, flat, make_clip, smooth


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
        {"synthetic": 0.5, "flow": "dis", "near_start": 2, "near_steps": 10},
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


def test_near_pairs_in_either_order_first_then_the_whole_clip() -> None:
    data = replace(PLAIN, near_start=3, near_steps=100)

    def farthest(step: int) -> float:
        batch = draw(flat(range(100)), data, 200, step)
        difference = (batch.source - batch.driving).mean((1, 2, 3)) * 255
        assert (difference != 0).all()
        assert (difference > 0).any() and (difference < 0).any()
        return float(difference.abs().max())

    assert farthest(0) == pytest.approx(3, abs=1e-3)
    assert 40 < farthest(50) < 52
    assert farthest(100) > 80


def test_synthetic_pairs_are_marked_have_their_share_and_stop_at_their_step() -> None:
    clip = make_clip(smooth(6))
    assert 10 < draw(clip, replace(PLAIN, synthetic=0.5), 40).bent.sum() < 30
    data = replace(PLAIN, synthetic=1.0, synthetic_until=5)
    assert [draw(clip, data, 2, step).bent.tolist() for step in (4, 5)] == [[True] * 2, [False] * 2]
    single = draw(make_clip(smooth(1)), PLAIN, 2)  # which has no second frame
    assert single.bent.all() and not torch.equal(single.source, single.driving)


def test_clips_that_do_not_fit_together_are_refused() -> None:
    small = make_clip(np.zeros((2, 32, 32)), name="small")
    labelled = flat([1, 2], name="labelled", points=np.zeros((2, 1, 2)))
    for clips in ([], [flat([1, 2]), small], [flat([1, 2]), labelled]):
        with pytest.raises(InputError) as error:
            draw(clips, PLAIN, 1)
        assert not clips or clips[1].clip.name in error.value.message
