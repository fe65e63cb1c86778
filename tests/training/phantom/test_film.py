"""A rendered clip and the truth about it: displacement, landmarks, pixels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.training.phantom.probe import pixel_grid
from sonomime.training.phantom.subject import (
    Identity,
    Shot,
    Subject,
    draw_subject,
    film,
    landmark_pixels,
)

FRAMES = 5
NOISE = [11, 0, 2]


@pytest.fixture(scope="module")
def subject() -> Subject:
    drawn = draw_subject(Identity("pelvic", 11, 0))
    display = replace(drawn.parameters.display, persistence=(1.0, 0.0, 0.0))
    return replace(drawn, parameters=replace(drawn.parameters, display=display))


@pytest.fixture(scope="module")
def shots(subject: Subject) -> list[Shot]:
    """Without noise and slip, as in a true prediction."""
    body = subject.body
    return list(film(body, body.states(FRAMES), 123))


def sample(field: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """A field (H, W, 2) at points (P, 2), bilinearly."""
    x, y = np.ascontiguousarray(points.T)[:, None]
    return np.asarray(cv2.remap(field, x, y, cv2.INTER_LINEAR)[0])


def test_the_first_frame_is_not_displaced(shots: list[Shot]) -> None:
    np.testing.assert_array_equal(shots[0].displacement, 0)
    assert shots[0].image.dtype == np.uint8 and shots[0].displacement.dtype == np.float32
    assert np.abs(shots[FRAMES // 2].displacement).max() > 5


def test_the_displacement_at_a_landmark_leads_to_where_it_was(
    subject: Subject, shots: list[Shot]
) -> None:
    body = subject.body
    points = landmark_pixels(body, body.states(FRAMES))
    for shot, at in zip(shots, points, strict=True):
        gap = at + sample(shot.displacement, at) - points[0]
        assert np.linalg.norm(gap, axis=-1).max() < 0.3


def test_the_exact_field_brings_the_first_frame_to_the_others(
    subject: Subject, shots: list[Shot]
) -> None:
    sector = cv2.erode(subject.body.probe.sector().astype(np.uint8), np.ones((9, 9))) > 0
    first = shots[0].image
    for shot in shots[2:4]:
        x, y = np.moveaxis(np.float32(pixel_grid()) + shot.displacement, -1, 0)
        warped = cv2.remap(first, x, y, cv2.INTER_LINEAR)
        # What comes in from outside of the first picture's sector is not to be had from it.
        known = cv2.remap(sector.astype(np.uint8), x, y, cv2.INTER_NEAREST) > 0
        blurred = [cv2.GaussianBlur(v, (0, 0), 2).astype(int) for v in (first, warped, shot.image)]
        hold, moved, true = (v[sector & known] for v in blurred)
        assert np.abs(moved - true).mean() < 0.5 * np.abs(hold - true).mean()


def test_outside_of_the_sector_it_is_black(subject: Subject, shots: list[Shot]) -> None:
    outside = cv2.dilate(subject.body.probe.sector().astype(np.uint8), np.ones((5, 5))) == 0
    assert all((shot.image[outside] == 0).all() for shot in shots)
    assert shots[0].image.max() > 150


def test_noise_and_speckle_have_seeds_of_their_own(subject: Subject, shots: list[Shot]) -> None:
    body = subject.body
    rest = body.states(FRAMES)[:1]
    (other,), (noisy,) = film(body, rest, 124), film(body, rest, 123, NOISE)
    again = shots[0]
    # Another seed is other speckle on the same anatomy; noise is seen where little echoes.
    change = np.abs(other.image.astype(int) - again.image)
    assert change.mean() > 5
    blurred = [cv2.GaussianBlur(v.image, (0, 0), 6).astype(float) for v in (other, again)]
    assert np.corrcoef(*[v.ravel() for v in blurred])[0, 1] > 0.95
    assert 0 < np.abs(noisy.image.astype(int) - again.image).mean() < change.mean()
