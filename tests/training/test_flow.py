"""Measured flow: a known translation is found, in the convention of the deformation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sonomime.training.flow import has_content, measured_flow
from sonomime.training.models.geometry import pixels_to_points


def texture(size: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 1, (size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    low, high = np.percentile(smooth, [1, 99])
    return np.clip((smooth - low) / (high - low), 0, 1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shift", [(0, 0), (6, -4), (-3, 9)])
def test_a_translation_is_found(shift: tuple[int, int], channels: int) -> None:
    """The driving frame shows at z what the source shows at z + shift pixels."""
    big = texture(288)
    x, y = shift
    driving = big[16:-16, 16:-16]
    source = big[16 - y : 272 - y, 16 - x : 272 - x]
    if channels == 3:
        driving, source = (np.repeat(image[..., None], 3, axis=-1) for image in (driving, source))
    flow, valid = measured_flow(np.ascontiguousarray(source), np.ascontiguousarray(driving))
    assert flow.shape == (64, 64, 2)
    assert flow.dtype == np.float32
    assert valid.shape == (64, 64)
    assert valid.dtype == np.bool_
    line = pixels_to_points(np.arange(64.0), 64)
    motion = (flow - np.stack(np.meshgrid(line, line), axis=-1)) * 128
    assert valid[8:-8, 8:-8].mean() > 0.95
    np.testing.assert_allclose(np.median(motion[valid], axis=0), shift, atol=0.25)
    assert np.abs(motion[valid] - shift).max() < 2


def test_what_left_the_image_and_what_is_black_is_not_valid() -> None:
    driving = texture(256)
    driving[:, 160:] = 0
    source = np.zeros_like(driving)
    source[:, :240] = driving[:, 16:]
    _, valid = measured_flow(source, driving)
    assert not valid[:, :3].any()
    assert not valid[:, 44:].any()
    assert valid[8:-8, 10:36].mean() > 0.9


def test_unrelated_images_do_not_agree() -> None:
    _, valid = measured_flow(texture(256), texture(256, seed=1))
    assert valid.mean() < 0.4


def test_content() -> None:
    image = np.zeros((64, 64), np.float32)
    image[:, 32:] = 0.5
    content = has_content(image, 16)
    assert content[:, 8:].all()
    assert not content[:, :6].any()
