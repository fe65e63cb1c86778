"""Motion transfer and One-Euro smoothing against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sonomime.training.models.keypoints.keypoint_detector import Keypoints
from sonomime.training.models.keypoints.transfer import (
    TransferStage,
    multiply_2x2,
    one_euro,
    state_size,
    transfer_motion,
)

K = 3


def points(seed: int) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.eye(2) + 0.2 * torch.randn(1, K, 2, 2, generator=generator)
    return Keypoints(torch.rand(1, K, 2, generator=generator) * 2 - 1, jacobian)


def number(value: float) -> Tensor:
    return torch.tensor([value])


def test_absolute_takes_the_driving_keypoints() -> None:
    driving = points(2)
    found = transfer_motion(points(0), points(1), driving, number(0), number(1.7))
    assert torch.equal(found.value, driving.value)
    assert torch.equal(found.jacobian, driving.jacobian)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_relative_formula(scale: float) -> None:
    source, reference, driving = points(0), points(1), points(2)
    found = transfer_motion(source, reference, driving, number(1), number(scale))
    value = source.value + scale * (driving.value - reference.value)
    jacobian = driving.jacobian @ torch.linalg.inv(reference.jacobian) @ source.jacobian
    torch.testing.assert_close(found.value, value, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.jacobian, jacobian, rtol=1e-5, atol=1e-5)


def test_the_reference_leaves_the_source_as_it_is() -> None:
    source, reference = points(0), points(1)
    found = transfer_motion(source, reference, reference, number(1), number(1))
    torch.testing.assert_close(found.value, source.value, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.jacobian, source.jacobian, rtol=0, atol=1e-5)


def test_product() -> None:
    a, b = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    torch.testing.assert_close(multiply_2x2(a, b), a @ b)


def scalar_one_euro(
    xs: list[float], dts: list[float], min_cutoff: float, beta: float
) -> list[float]:
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
    xs=st.lists(st.floats(-1, 1), min_size=1, max_size=12),
    min_cutoff=st.floats(0.1, 10),
    beta=st.floats(0, 20),
    data=st.data(),
)
def test_smoothing_is_the_papers(
    xs: list[float], min_cutoff: float, beta: float, data: st.DataObject
) -> None:
    steps = st.floats(0.005, 0.5)
    dts = data.draw(st.lists(steps, min_size=len(xs), max_size=len(xs)))
    state = torch.zeros(1, 1 + 2 * 2)
    found = []
    for x, dt in zip(xs, dts, strict=True):
        now = torch.tensor([[x, -x]])
        smoothed, state = one_euro(now, state, number(min_cutoff), number(beta), number(dt))
        assert smoothed[0, 0] == -smoothed[0, 1]
        found.append(float(smoothed[0, 0]))
    np.testing.assert_allclose(found, scalar_one_euro(xs, dts, min_cutoff, beta), atol=2e-4)


@pytest.mark.parametrize("min_cutoff", [0.0, -1.0])
def test_no_smoothing(min_cutoff: float) -> None:
    state = torch.zeros(1, 5)
    for value in (0.1, 0.9, -0.4):
        x = torch.full((1, 2), value)
        smoothed, state = one_euro(x, state, number(min_cutoff), number(10.0), number(0.1))
        assert torch.equal(smoothed, x) and torch.isfinite(state).all()
    # Switched on in the middle, it goes on from where the points are.
    smoothed, _ = one_euro(x, state, number(1.0), number(0.0), number(0.1))
    torch.testing.assert_close(smoothed, x)


@pytest.mark.parametrize("dt", [0.0, -1.0, 1e-9])
def test_impossible_steps_stay_finite(dt: float) -> None:
    state = torch.zeros(1, 5)
    for value in (0.0, 1.0, 0.5):
        x = torch.full((1, 2), value)
        smoothed, state = one_euro(x, state, number(1.0), number(5.0), number(dt))
        assert torch.isfinite(smoothed).all() and torch.isfinite(state).all()


def test_a_fresh_state_takes_the_first_frame_and_marks_it_seen() -> None:
    source, reference, driving = points(0), points(1), points(2)
    state = torch.zeros(1, state_size(K))
    controls = [number(x) for x in (0, 1, 1.5, 10, 1 / 30)]
    value, jacobian, after = TransferStage()(*source, *reference, *driving, *controls, state)
    assert torch.equal(value, driving.value) and torch.equal(jacobian, driving.jacobian)
    assert after.shape == state.shape and after[0, 0] == 1


def test_smoothing_follows_the_driver_not_the_target() -> None:
    """So that a new source or scale does not make the picture glide."""
    source, other, reference = points(0), points(5), points(1)
    state = torch.zeros(1, state_size(K))
    controls = [number(x) for x in (1, 1, 1.5, 10, 1 / 30)]
    stage = TransferStage()
    *_, state = stage(*source, *reference, *reference, *controls, state)
    value, _, _ = stage(*other, *reference, *reference, *controls, state)
    torch.testing.assert_close(value, other.value, rtol=0, atol=1e-6)
