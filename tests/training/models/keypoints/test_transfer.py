"""Motion transfer and One-Euro smoothing against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import noise
from torch import Tensor

from sonomime.training.models.keypoints.keypoint_detector import Keypoints
from sonomime.training.models.keypoints.stages import (
    smooth_and_transfer,
    state_size,
    transfer_motion,
)
from sonomime.training.models.one_euro import one_euro

K = 3


def points(seed: int) -> Keypoints:
    jacobian = torch.eye(2) + 0.6 * (noise(1, K, 2, 2, seed=seed) - 0.5)
    return Keypoints(noise(1, K, 2, seed=seed + 50) * 2 - 1, jacobian)


def number(value: float) -> Tensor:
    return torch.tensor([value])


def test_absolute_and_relative_motion() -> None:
    source, reference, driving = points(0), points(1), points(2)
    found = transfer_motion(source, reference, driving, number(0), number(1.7))
    assert all(map(torch.equal, found, driving))
    for scale in (1.0, 0.5):
        found = transfer_motion(source, reference, driving, number(1), number(scale))
        value = source.value + scale * (driving.value - reference.value)
        jacobian = driving.jacobian @ torch.linalg.inv(reference.jacobian) @ source.jacobian
        torch.testing.assert_close(found.value, value, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.jacobian, jacobian, rtol=1e-5, atol=1e-5)


def scalar_one_euro(xs: list[float], dts: list[float], min_cutoff: float, beta: float) -> list:
    """Written from the paper, one number at a time."""

    def alpha(cutoff: float, dt: float) -> float:
        return 1 / (1 + 1 / (2 * math.pi * cutoff) / dt)

    results = [xs[0]]
    speed = 0.0
    for x, dt in zip(xs[1:], dts[1:], strict=True):
        last = results[-1]
        a = alpha(1.0, dt)
        speed = a * (x - last) / dt + (1 - a) * speed
        a = alpha(min_cutoff + beta * abs(speed), dt)
        results.append(a * x + (1 - a) * last)
    return results


@settings(max_examples=30)
@given(
    steps=st.lists(st.tuples(st.floats(-1, 1), st.floats(0.005, 0.5)), min_size=1, max_size=12),
    min_cutoff=st.floats(0.1, 10),
    beta=st.floats(0, 20),
)
def test_smoothing_is_the_papers(
    steps: list[tuple[float, float]], min_cutoff: float, beta: float
) -> None:
    state, found = torch.zeros(1, 5), []
    for x, dt in steps:
        now = torch.tensor([[x, -x]])
        (smooth,), state = one_euro([now], state, number(min_cutoff), number(beta), number(dt))
        assert smooth[0, 0] == -smooth[0, 1]
        found.append(float(smooth[0, 0]))
    xs, dts = map(list, zip(*steps, strict=True))
    np.testing.assert_allclose(found, scalar_one_euro(xs, dts, min_cutoff, beta), atol=2e-4)


@pytest.mark.parametrize("dt", [0.1, 0.0, -1.0, 1e-9])
@pytest.mark.parametrize("min_cutoff", [0.0, -1.0, 1.0])
def test_no_smoothing_and_impossible_steps(min_cutoff: float, dt: float) -> None:
    state = torch.zeros(1, 5)
    for value in (0.1, 0.9, -0.4):
        x = torch.full((1, 2), value)
        (smooth,), state = one_euro([x], state, number(min_cutoff), number(10.0), number(dt))
        assert torch.isfinite(smooth).all() and torch.isfinite(state).all()
        assert min_cutoff > 0 or torch.equal(smooth, x)
    # Switched on in the middle, it goes on from where the points are.
    (smooth,), _ = one_euro([smooth], state, number(1.0), number(0.0), number(0.1))
    torch.testing.assert_close(smooth, state[:, 1:3])


def test_smoothing_follows_the_driver_not_the_target() -> None:
    """So that a new source or scale does not make the picture glide."""
    source, other, reference = points(0), points(5), points(1)
    controls = [number(x) for x in (1, 1, 1.5, 10, 1 / 30)]
    state = torch.zeros(1, state_size(K))
    _, state = smooth_and_transfer(source, reference, reference, *controls, state)
    assert state[0, 0] == 1
    found, _ = smooth_and_transfer(other, reference, reference, *controls, state)
    torch.testing.assert_close(found.value, other.value, rtol=0, atol=1e-6)
