"""Which frames make a pair: pure in (seed, step), balanced; their labels; prepared ahead."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from sonomime.runtime.support.errors import InputError
from sonomime.training.config import DataConfig
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.clip_frames import ClipFrames
from sonomime.training.data.pairs import AHEAD, PairSampler, prefetched

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


def test_no_clips_are_refused() -> None:
    with pytest.raises(InputError):
        draw([], PLAIN, 1)


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


@pytest.mark.parametrize(("fraction", "low", "high"), [(0.0, 0.0, 0.2), (1.0, 1.0, 1.0)])
def test_labelled_fraction_at_its_ends(fraction: float, low: float, high: float) -> None:
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
