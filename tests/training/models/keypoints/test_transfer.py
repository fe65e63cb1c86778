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

from sonomime.training.models.keypoints.family import transfer
from sonomime.training.models.keypoints.motion import Keypoints
from sonomime.training.models.one_euro import one_euro

K = 3
FRESH = torch.zeros(1, 1 + 2 * 6 * K)


def points(seed: int) -> Keypoints:
    jacobian = torch.eye(2) + 0.6 * (noise(1, K, 2, 2, seed=seed) - 0.5)
    return Keypoints(noise(1, K, 2, seed=seed + 50) * 2 - 1, jacobian)


def number(value: float) -> Tensor:
    return torch.tensor([value])


def moved(
    *points: Keypoints, controls: tuple[float, ...], state: Tensor = FRESH
) -> tuple[Keypoints, Tensor]:
    """Where the points of source, reference and driving frame lead to, and the next state."""
    given = (tensor for each in points for tensor in each)
    *target, state = transfer(torch.nn.Identity(), *given, *map(number, controls), state).values()
    return Keypoints(*target), state


def test_absolute_and_relative_motion() -> None:
    source, reference, driving = points(0), points(1), points(2)
    found, _ = moved(source, reference, driving, controls=(0, 1.7, 0, 0, 0.1))
    assert all(map(torch.equal, found, driving))
    for scale in (1.0, 0.5):
        found, _ = moved(source, reference, driving, controls=(1, scale, 0, 0, 0.1))
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
    source, other, reference, controls = points(0), points(5), points(1), (1, 1, 1.5, 10, 1 / 30)
    _, state = moved(source, reference, reference, controls=controls)
    assert state[0, 0] == 1
    found, _ = moved(other, reference, reference, controls=controls, state=state)
    torch.testing.assert_close(found.value, other.value, rtol=0, atol=1e-6)
    # It has not yet followed the driver where this is now.
    late, _ = moved(other, reference, points(2), controls=controls, state=state)
    flat = torch.cat([part.reshape(1, -1) for part in points(2)], dim=1)
    (calm,), _ = one_euro([flat], state, *map(number, controls[2:]))
    value = calm[:, : 2 * K].view(1, K, 2)
    torch.testing.assert_close(late.value, other.value + value - reference.value)
