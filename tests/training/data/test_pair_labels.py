"""Labels of a pair: preferred within their group, and what is known to be absent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonomime.training.data.dataset import ClipFrames
from sonomime.training.data.pairs import PairSampler

from .made_clips import PLAIN, assert_same, flat


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
    unlabelled = batch.driving.amax((1, 2, 3)) * 255 >= 99
    assert batch.driving_absent[unlabelled].all()
    assert not batch.driving_absent[~unlabelled, 0].any()
    assert batch.driving_absent[~unlabelled, 1].all()
    # Where the group has the label elsewhere, only the frame's own label denies it.
    seen = one.visible.copy()
    seen[3, 1] = True
    clip = replace(one, visible=seen, absent=says)
    batch = PairSampler([clip, none], PLAIN, 0, batch_size=100).batch(0)
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
