"""The tracker: close on texture that is moved exactly, still on a still, no guess when lost."""

from __future__ import annotations

import numpy as np
import pytest

from sonomime.training.evaluation.landmarks import mean_error, measure, track

from .phantoms import MARKS, NAMES, displacement, render


def test_a_held_source_does_not_move_a_landmark() -> None:
    still = render(0, displacement(0))[0]
    found = track(still, [still] * 5, MARKS)
    assert np.abs(found - MARKS).max() < 1e-3
    flat = np.full_like(still, 90)  # nothing to see
    assert np.allclose(track(still, [flat] * 3, MARKS), MARKS)


def test_an_unknown_start_stays_unknown_and_harms_no_other() -> None:
    frames = render(2, displacement(2))
    start = np.concatenate([MARKS[:1], [[np.nan, np.nan]]])
    found = track(frames[0], frames, start)
    assert np.isnan(found[:, 1]).all()
    assert np.allclose(found[:, 0], track(frames[0], frames, MARKS)[:, 0])
    assert track(frames[0], [], MARKS).shape == (0, 2, 2)


def test_errors_are_means_over_the_frames_that_are_known() -> None:
    start = np.zeros((2, 2))
    true = np.zeros((3, 2, 2))
    true[:, 0, 0] = (0, 3, 6)
    true[2, 0] = np.nan
    true[:, 1] = np.nan
    down = np.array([0.0, 1.0])
    tracks = {"model": true + down, "oracle": true + down / 2, "truth": true.copy()}
    errors = measure(NAMES, start, true, tracks)
    assert list(errors) == [NAMES[0]]
    error = errors[NAMES[0]]
    assert error == pytest.approx({"model": 1, "hold": 1.5, "oracle": 0.5, "truth": 0})
    assert mean_error(errors.values()) == pytest.approx(error)
    assert mean_error([]) is None
