"""Pelvic floors and hearts: exact landmarks, invertible maps, manoeuvres, what cannot be."""

from __future__ import annotations

import runpy
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from sonomime.training.evaluation.metrics import read_at
from sonomime.training.phantom.anatomies import ANATOMIES
from sonomime.training.phantom.body import Body, map_error, why_impossible
from sonomime.training.phantom.heart import CONTRACTION, VALVE, Heart
from sonomime.training.phantom.pelvic import EDGE, NECK, Pelvic
from sonomime.training.phantom.ranges import out_of_range
from sonomime.training.phantom.subject import Identity, draw_subject, film, landmark_pixels
from sonomime.training.phantom.tissue_map import Grid, integrate

NAMES = tuple(ANATOMIES)
SUBJECTS = {name: [draw_subject(Identity(name, 11, i)) for i in range(4)] for name in NAMES}
BODIES: dict[str, list[Any]] = {name: [s.body for s in SUBJECTS[name]] for name in NAMES}
EVERY = [
    pytest.param(b, id=s.name) for n in NAMES for s, b in zip(SUBJECTS[n], BODIES[n], strict=True)
]
HEART, PELVIS = BODIES["heart"][0], BODIES["pelvic"][0]


def carried(body: Body, state: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where the map of a state brings points (N, 2) of the body at rest."""
    velocity, pose = body.motion(state)
    return pose.place(integrate(points, velocity))


@pytest.mark.parametrize("body", EVERY)
def test_the_flow_carries_the_landmarks_and_can_be_undone(body: Body) -> None:
    tolerance = 1e-6 if isinstance(body, Heart) else 0.01  # mm
    for state in body.states(9):
        found = carried(body, state, body.rest)
        np.testing.assert_allclose(found, body.landmarks(state), rtol=0, atol=tolerance)
    assert max(map_error(body, state) for state in body.states(5)) < 0.1  # px


@pytest.mark.parametrize("body", EVERY)
def test_a_manoeuvre_begins_at_rest_however_many_frames_show_it(body: Body) -> None:
    states = body.states(33)
    for frames in (1, 9):
        np.testing.assert_allclose(
            body.states(frames), states[:: 4 * (frames > 1) or 33], atol=1e-12
        )
        assert body.out_of_plane(frames).shape == (frames,)
    np.testing.assert_allclose(states[0], 0, atol=1e-12)
    assert why_impossible(body, body.states(40)) is None
    points = np.random.default_rng(0).uniform(0, 70, (50, 2))
    np.testing.assert_allclose(carried(body, 0 * states[0], points), points, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_true_prediction_moves_the_landmarks_as_the_other_body_moves_its_own(name: str) -> None:
    body, driving = BODIES[name][:2]
    states = driving.states(7)
    assert why_impossible(body, states) is None
    own, other = (landmark_pixels(b, states) for b in (body, driving))
    expected = own[0] + other - other[0]  # p_A + p_B(t) - p_B(0), pixels of one picture size
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-3)
    for state in states[[2, 4, 6]]:
        assert map_error(body, state) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_subjects_follow_from_their_identity_and_the_whole_population_is_in_range(
    name: str,
) -> None:
    assert draw_subject(Identity(name, 11, 3)) == SUBJECTS[name][3]
    anatomy = ANATOMIES[name]
    drawn = [anatomy.draw(np.random.default_rng([2, i])) for i in range(300)]
    assert len({str(parameters) for parameters in drawn}) == 300
    assert [found for p in drawn if (found := out_of_range(p) or anatomy.unfit(p))] == []
    if name == "pelvic":
        assert np.mean([p.manoeuvre.descent for p in drawn]) == pytest.approx(16.5, abs=1.5)  # mm


def unchecked(kind: type) -> list[str]:
    """Fields without a range, of a dataclass and those in it."""
    found = []
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        if hasattr(hint, "__dataclass_fields__"):
            found += unchecked(hint)
        elif get_origin(hint) is not Annotated or len(get_args(hint)) < 2:
            found.append(f"{kind.__name__}.{field.name}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_range(name: str) -> None:
    assert unchecked(ANATOMIES[name].parameters) == []


@pytest.mark.parametrize("body", BODIES["pelvic"][:3])
def test_bone_and_face_stay_but_for_the_sway(body: Pelvic) -> None:
    turn = np.linspace(0, 2 * np.pi, 24)
    c, s = np.cos(body.bone_angle), np.sin(body.bone_angle)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * body.bone_axes @ [[c, s], [-s, c]]
    angle = np.linspace(-0.9, 0.9, 15) * body.probe.half_angle
    face = body.probe.from_polar(np.zeros(15), angle)
    held = np.concatenate([body.bone + ring, body.bone + 0.5 * ring, face, body.edge[None]])
    for state in body.states(5)[1:]:
        velocity, pose = body.motion(state)
        np.testing.assert_allclose(integrate(held, velocity), held, atol=1e-9)
        moved = body.edge + body.mm_per_point * state[EDGE]
        np.testing.assert_allclose(pose.place(body.edge), moved)


@pytest.mark.parametrize("body", BODIES["pelvic"])
def test_a_valsalva_lowers_the_neck_by_its_descent(body: Pelvic) -> None:
    lowest = np.max([-body.mm_per_point * (s[NECK] - s[EDGE])[1] for s in body.states(33)])
    assert abs(lowest - body.parameters.manoeuvre.descent) < 4  # the probe's tilt is a part of it


@pytest.mark.parametrize("body", BODIES["heart"])
def test_hearts_beat_as_hearts_do(body: Heart) -> None:
    beating = body.parameters.beating
    states = body.states(241)
    squeeze, valve = states[:, CONTRACTION], states[:, VALVE]
    begun = np.flatnonzero(np.diff((squeeze > 0.765 * beating.contraction).astype(int)) == 1)
    assert 1 <= len(begun) <= np.ceil(beating.beats) + 1
    first = squeeze[: int(200 / beating.beats)]
    assert abs(first.argmax() / 240 * beating.beats - beating.systole) < 0.12
    assert 0.15 < first.max() < 0.45
    ejecting = (np.diff(squeeze) > 0) & (squeeze[1:] > 0.3 * first.max())
    assert valve[1:][ejecting].max() < -0.9 and valve.max() > 0.6  # shut, and open
    # The annulus goes 6 to 18 mm towards the apex, which stays where it is but for the sway.
    quiet = replace(beating, sway=0.0, tilt=0.0, breath=0.0)
    still = Heart(replace(body.parameters, beating=quiet))
    ways = np.stack([still.landmarks(s) - still.rest for s in still.states(241)])
    towards = (-ways @ still.frame.along)[:, 1:].max(axis=0)
    assert np.all((towards > 6) & (towards < 18.5)) and np.abs(ways[:, 0]).max() < 3


def test_a_contracted_heart_folds_nowhere() -> None:
    states = HEART.states(121)
    for state in states[[states[:, i].argmax() for i in (CONTRACTION, VALVE)]]:
        velocity, pose = HEART.motion(state)
        grid = Grid.over(np.array([-70.0, 10.0]), np.array([70.0, HEART.probe.depth]), 1.0)
        back = integrate(pose.remove(grid.points), velocity, backwards=True)
        down, right = (np.asarray(v) for v in np.gradient(back, grid.z, grid.x, axis=(0, 1)))
        size = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
        size = size[HEART.probe.inside(grid.points, 2.0)]
        # Blood is pressed out of the plane, so the cavity halves.
        assert size.min() > 0.1 and np.percentile(size, 5) > 0.5 and np.percentile(size, 95) < 2.0


def test_pictures_of_a_heart_are_the_same_again_and_blood_is_dark() -> None:
    states = HEART.states(40)[[0, 8]]
    shots, again = (list(film(HEART, states, 7, [1, 2])) for _ in range(2))
    places = landmark_pixels(HEART, states)
    for one, other, now in zip(shots, again, places, strict=True):
        np.testing.assert_array_equal(one.displacement, other.displacement)
        np.testing.assert_array_equal(one.image, other.image)
        way = read_at(one.displacement, now[None])[0]
        # Exact at the landmark; between pixels it is read bilinearly and kept to 1/512 px.
        np.testing.assert_allclose(now + way, places[0], rtol=0, atol=0.05)
    # Blood, between the walls, is dark beside the septum.
    share = np.linspace(0.4, 0.75, 40)
    wall = HEART.half_width(share)
    septum, blood = (
        HEART.probe.to_pixels(HEART.frame.place(share * HEART.frame.length, u)).round().astype(int)
        for u in (-wall - 0.5 * HEART.parameters.septum, np.linspace(-0.4, 0.2, 40) * wall)
    )
    grey = shots[0].image
    assert np.median(grey[septum[:, 1], septum[:, 0]]) > 1.5 * np.median(
        grey[blood[:, 1], blood[:, 0]]
    )


@pytest.mark.parametrize(
    ("body", "change", "said"),
    [
        (HEART, {3: -0.3, 5: -0.3}, "as long as at rest"),
        (HEART, {2: -0.35, 4: 0.35}, "squeezed shut"),
        (HEART, {CONTRACTION: 0.7}, "contracts"),
        (HEART, {VALVE: 2.0}, "wider than open"),
        (HEART, {2: 5.0}, "mitral_lateral lies outside of the sector in frame 0"),
        (PELVIS, {0: -0.4, 1: -0.45}, "symphysis"),
        (PELVIS, {1: -0.7}, "pressed into the probe"),
    ],
)
def test_impossible_states_are_named(body: Body, change: dict[int, float], said: str) -> None:
    state = np.zeros_like(body.states(1)[0])
    state[list(change)] = list(change.values())
    assert said in (why_impossible(body, state[None]) or "")


def test_the_manuals_smallest_anatomy_is_whole(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "phantom-anatomy.md"
    code = tmp_path / "cyst.py"
    code.write_text(page.read_text(encoding="utf-8").split("```python\n")[-1].split("```")[0])
    made = runpy.run_path(str(code))
    body = made["Cyst"](made["draw"](np.random.default_rng(3)))
    states = body.states(5)
    assert why_impossible(body, states) is None and out_of_range(body.parameters) is None
    assert max(map_error(body, state) for state in states) < 0.1
    (shot,) = film(body, states[2:3], 1)
    assert shot.image.max() > 100
