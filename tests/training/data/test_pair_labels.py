"""Labels of a pair: preferred within their group, and what is known to be absent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonomime.training.data.dataset import ClipFrames

from .made_clips import PLAIN, draw, flat


def labelled_clips() -> list[ClipFrames]:
    """Two labelled frames among forty, and a group without labels."""
    visible = np.zeros((20, 2), np.bool_)
    visible[[3, 11], 0] = True
    points = np.zeros((20, 2, 2))
    points[3, 0], points[11, 0] = (0.25, 0.5), (-0.25, 0.5)
    none = flat(
        range(100, 120), name="b", group="unlabelled", points=0 * points, visible=visible & False
    )
    return [flat(range(20), points=points, visible=visible), none]


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
