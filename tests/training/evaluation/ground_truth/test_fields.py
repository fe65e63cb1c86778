"""Exact fields: flows between frames compose, and the way into the model's frame keeps them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.runtime.media.frames import Crop, Letterbox
from sonomime.training.evaluation.ground_truth import fields
from sonomime.training.evaluation.metrics import length, pixel_grid

from ..phantoms import SIZE, displacement, render, sector


def _bump(size: int, strength: float) -> NDArray[np.float32]:
    """D(x) = -strength * bump(x), steepest slope 0.6 strength / 12."""
    grid = pixel_grid(size, size)
    bump = np.exp(-((grid - size / 2) ** 2).sum(-1, keepdims=True) / (2 * 12.0**2))
    return (np.array([-strength, 0.3 * strength]) * bump).astype(np.float32)


@pytest.mark.parametrize("strength", [5.0, -19.0, 24.0])
def test_the_solution_shows_the_same_tissue_even_in_strong_fields(strength: float) -> None:
    driving, source = _bump(96, -strength / 2), _bump(96, strength)
    flow, known = fields.flow_between(driving, source)
    at = pixel_grid(96, 96) + flow
    bump = np.exp(-((at - 48) ** 2).sum(-1, keepdims=True) / (2 * 12.0**2))
    tissue = at + np.array([-strength, 0.3 * strength]) * bump
    miss = length((tissue - pixel_grid(96, 96) - driving).astype(np.float32))
    # The field is read bilinearly: between its pixels it is off by an eighth of its curvature.
    assert miss[known].max() < 0.06
    assert known.mean() > (0.95 if abs(strength) < 20 else 0.8)


def test_a_source_warped_by_the_flow_is_the_driving_frame() -> None:
    d = displacement(2)
    frames = render(2, d).astype(np.float32)
    flow, known = fields.flow_between(d[5], d[1])
    at = pixel_grid(SIZE, SIZE) + flow
    warped = cv2.remap(frames[1], at, None, cv2.INTER_CUBIC)  # bilinear would blur fine speckle
    miss = np.abs(warped - frames[5])[known & sector()].mean()
    held = np.abs(frames[1] - frames[5])[sector()].mean()
    assert miss < 0.1 * held


def test_the_models_frame_of_half_the_size_has_half_the_motion() -> None:
    field = displacement(0)[4]
    box = Letterbox.fit(SIZE, SIZE, SIZE // 2)
    small = fields.to_model_frame(field, None, box)
    expected = field.reshape(SIZE // 2, 2, SIZE // 2, 2, 2).mean((1, 3)) / 2
    assert np.allclose(small, expected, atol=1e-3)
    assert fields.to_model_frame(field, None, Letterbox.fit(SIZE, SIZE, SIZE)) is field
    assert abs(fields.mask_in_model_frame(sector(), None, box).mean() - sector().mean()) < 0.02


def test_a_crop_moves_the_field_and_the_points_along() -> None:
    field = np.broadcast_to(pixel_grid(40, 60), (40, 60, 2)).astype(np.float32)
    crop, box = Crop(10, 4, 20, 10), Letterbox.fit(20, 10, 20)
    moved = fields.to_model_frame(field, crop, box)
    # The 20 x 10 crop lies in rows 5 to 14 of the square.
    assert np.allclose(moved[5, 0], (10, 4)) and np.allclose(moved[14, 19], (29, 13))
    assert not moved[:5].any() and not moved[15:].any()
    mask = fields.mask_in_model_frame(np.ones((40, 60), np.bool_), crop, box)
    assert mask[5:15].all() and mask.sum() == 200
    points = fields.points_in_model_frame(np.array([[10.0, 4.0], [29.0, 13.0]]), crop, box)
    assert np.allclose(points, [[0, 5], [19, 14]])
