"""What changes a pair: one geometric map for frames and keypoints, bends, and their looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonomime.training.coordinates import points_to_pixels
from sonomime.training.data.batch import PairBatch

from .made_clips import MOVED, PLAIN, blob, centre, draw, make_clip, smooth


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
