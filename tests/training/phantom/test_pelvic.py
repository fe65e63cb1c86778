"""Pelvic subjects: landmarks and tissue go where the state says, bone and face stay."""

from __future__ import annotations

import numpy as np
import pytest

from sonomime.training.phantom.anatomy import map_error, why_impossible
from sonomime.training.phantom.pelvic import EDGE, NECK, Pelvic
from sonomime.training.phantom.pelvic_subjects import draw, unfit
from sonomime.training.phantom.subject import Identity, draw_subject
from sonomime.training.phantom.tissue_map import integrate

SUBJECTS = [draw_subject(Identity("pelvic", 11, number)) for number in range(6)]
BODIES = [subject.body for subject in SUBJECTS]


def pelvic(number: int) -> Pelvic:
    body = BODIES[number]
    assert isinstance(body, Pelvic)
    return body


@pytest.mark.parametrize("number", range(6))
def test_landmarks_by_the_flow_are_landmarks_by_definition(number: int) -> None:
    body = BODIES[number]
    rest = body.landmarks(np.zeros(8))
    for state in body.states(9):
        velocity, pose = body.motion(state)
        carried = body.probe.to_pixels(pose.place(integrate(rest, velocity)))
        wanted = body.probe.to_pixels(body.landmarks(state))
        assert np.linalg.norm(carried - wanted, axis=-1).max() < 0.02


@pytest.mark.parametrize("number", range(3))
def test_the_map_can_be_undone(number: int) -> None:
    body = BODIES[number]
    assert max(map_error(body, state) for state in body.states(5)) < 0.02


def test_landmarks_follow_another_subjects_manoeuvre_exactly() -> None:
    body, driving = BODIES[0], BODIES[1]
    states = driving.states(7)
    assert why_impossible(body, states) is None
    rest = body.landmarks(np.zeros(8))
    for state in states[[2, 4, 6]]:
        assert map_error(body, state) < 0.05
        # Lengths of a state are points of the picture: pixels carry over as they are.
        way = body.probe.to_pixels(body.landmarks(state)) - body.probe.to_pixels(rest)
        theirs = driving.probe.to_pixels(driving.landmarks(state))
        theirs -= driving.probe.to_pixels(driving.landmarks(np.zeros(8)))
        np.testing.assert_allclose(way, theirs, atol=1e-9)


@pytest.mark.parametrize("number", range(3))
def test_bone_and_face_stay_but_for_the_sway(number: int) -> None:
    body = pelvic(number)
    turn = np.linspace(0, 2 * np.pi, 24)
    c, s = np.cos(body.bone_angle), np.sin(body.bone_angle)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * body.bone_axes @ [[c, s], [-s, c]]
    bone = body.bone + np.concatenate([ring, 0.5 * ring])
    angle = np.linspace(-0.9, 0.9, 15) * body.probe.half_angle
    face = body.probe.from_polar(np.zeros(15), angle)
    held = np.concatenate([bone, face, body.edge[None]])
    for state in body.states(5)[1:]:
        velocity, pose = body.motion(state)
        np.testing.assert_allclose(integrate(held, velocity), held, atol=1e-9)
        moved = body.edge + body.mm_per_point * state[EDGE]
        np.testing.assert_allclose(pose.place(body.edge), moved)


@pytest.mark.parametrize("number", range(6))
def test_a_manoeuvre_begins_at_rest_and_lowers_the_neck(number: int) -> None:
    body = pelvic(number)
    states = body.states(33)
    np.testing.assert_allclose(states[0], 0, atol=1e-12)
    np.testing.assert_allclose(body.states(1), 0, atol=1e-12)
    # However many frames show it, it is the same manoeuvre.
    np.testing.assert_allclose(body.states(9), states[::4], atol=1e-12)
    lowest = np.max([-body.mm_per_point * (s[NECK] - s[EDGE])[1] for s in states])
    descent = body.parameters.manoeuvre.descent
    assert abs(lowest - descent) < 4  # the probe's tilt makes a part of it


def test_subjects_are_possible_differ_and_follow_from_their_identity() -> None:
    for subject, body in zip(SUBJECTS, BODIES, strict=True):
        assert why_impossible(body, body.states(40)) is None
        assert unfit(subject.parameters) is None
    assert len({subject.parameters.neck for subject in SUBJECTS}) == len(SUBJECTS)
    assert draw_subject(Identity("pelvic", 11, 3)) == SUBJECTS[3]


def test_the_limits_hold_the_whole_population() -> None:
    drawn = [draw(np.random.default_rng([2, i])) for i in range(300)]
    assert [problem for p in drawn if (problem := unfit(p))] == []
    assert [problem for p in drawn if (problem := p.probe.impossible())] == []
    assert [problem for p in drawn if (problem := p.display.impossible())] == []
    descents = [p.manoeuvre.descent for p in drawn]
    assert np.mean(descents) == pytest.approx(16.5, abs=1.5)  # mm, as in METHOD
