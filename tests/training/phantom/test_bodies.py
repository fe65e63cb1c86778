"""Pelvic floors and hearts: exact landmarks, invertible maps, manoeuvres, what cannot be."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonomime.training.evaluation.metrics import read_at
from sonomime.training.phantom import motion
from sonomime.training.phantom.body import Body
from sonomime.training.phantom.generate import VERSION
from sonomime.training.phantom.heart import CONTRACTION, VALVE, Heart
from sonomime.training.phantom.motion import integrate
from sonomime.training.phantom.paint import Grid
from sonomime.training.phantom.pelvic import EDGE, NECK, Pelvic
from sonomime.training.phantom.probe import out_of_range
from sonomime.training.phantom.render import film
from sonomime.training.phantom.subject import ANATOMIES, draw_subject

SUBJECTS = {name: [draw_subject(name, 11, i) for i in range(4)] for name in ANATOMIES}
BODIES: dict[str, list[Any]] = {name: [s.body for s in SUBJECTS[name]] for name in ANATOMIES}
HEART, PELVIS = BODIES["heart"][0], BODIES["pelvic"][0]


def carried(body: Body, state: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where the map of a state brings points (N, 2) of the body at rest."""
    return body.pose(state).place(integrate(points, body.velocity(state)))


@pytest.mark.parametrize("body", BODIES["pelvic"] + BODIES["heart"])
def test_a_manoeuvre_begins_at_rest_and_its_maps_carry_the_landmarks_and_can_be_undone(
    body: Body,
) -> None:
    states = body.states(33)
    for frames, stride in ((1, 33), (9, 4)):  # however many frames show it
        np.testing.assert_allclose(body.states(frames), states[::stride], atol=1e-12)
        assert body.out_of_plane(frames).shape == (frames,)
    np.testing.assert_allclose(states[0], 0, atol=1e-12)
    assert body.why_impossible(body.states(40)) is None
    points = np.random.default_rng(0).uniform(0, 70, (50, 2))
    np.testing.assert_allclose(carried(body, 0 * states[0], points), points, atol=1e-12)
    tolerance = 1e-6 if isinstance(body, Heart) else 0.01  # mm
    for state in states[::4]:
        found = carried(body, state, body.rest)
        np.testing.assert_allclose(found, body.landmarks(state), rtol=0, atol=tolerance)
    assert max(body.map_error(state) for state in states[::8]) < 0.1  # px


@pytest.mark.parametrize("name", ANATOMIES)
def test_a_true_prediction_moves_the_landmarks_as_the_other_body_moves_its_own(name: str) -> None:
    body, driving = BODIES[name][:2]
    states = driving.states(7)
    own, other = body.landmark_pixels(states), driving.landmark_pixels(states)
    # p_A + p_B(t) - p_B(0), pixels of one picture size
    np.testing.assert_allclose(own - own[0], other - other[0], rtol=0, atol=1e-3)
    assert max(body.map_error(state) for state in states[2:]) < 0.1


@pytest.mark.parametrize("name", ANATOMIES)
def test_subjects_follow_from_their_number_and_the_whole_population_is_in_range(name: str) -> None:
    assert draw_subject(name, 11, 3) == SUBJECTS[name][3]
    anatomy = ANATOMIES[name]
    drawn = [anatomy.draw(np.random.default_rng([2, i])) for i in range(300)]
    assert len({str(parameters) for parameters in drawn}) == 300
    assert [found for p in drawn if (found := out_of_range(p) or anatomy.unfit(p))] == []
    if name == "pelvic":
        assert np.mean([p.manoeuvre.descent for p in drawn]) == pytest.approx(16.5, abs=1.5)  # mm


def held(at: np.ndarray) -> np.ndarray:
    """A push and a turn that bone and face hold still."""
    bone = motion.ellipse_distance(at, np.array([-14.0, 20.0]), np.array([17.0, 7.0]), 0.5)
    centre, move, reach = np.array([[3.0, 40.0], [4.0, -9.0], [15.0, 23.0]])
    stream = motion.push(at, centre, move, reach) + motion.turn(at, centre, 0.6, 10.0)
    return motion.hold(motion.hold(stream, bone, 13.0), motion.face_distance(at, 50.0), 16.0)


def test_flows_are_the_curl_of_their_stream_function_and_free_of_divergence() -> None:
    at = np.random.default_rng(5).uniform([[-50], [-10]], [[50], [90]], (2, 400))
    steps = 1e-4 * np.eye(2)[:, :, None]
    by_x, by_z = ((held(at + step) - held(at - step)) / 2e-4 for step in steps)
    np.testing.assert_allclose(held(at)[1:], np.stack([by_z[0], -by_x[0]]), atol=2e-5)
    largest = max(np.abs(by_x[1:]).max(), np.abs(by_z[1:]).max())
    assert np.abs(by_x[1] + by_z[2]).max() < 1e-4 * largest


@pytest.mark.parametrize("body", BODIES["pelvic"])
def test_a_valsalva_lowers_the_neck_and_leaves_bone_and_face_but_for_the_sway(body: Pelvic) -> None:
    lowest = np.max([-body.mm_per_point * (s[NECK] - s[EDGE])[1] for s in body.states(33)])
    assert abs(lowest - body.parameters.manoeuvre.descent) < 4  # the probe's tilt is a part of it
    turn = np.linspace(0, 2 * np.pi, 24)
    bone, half_axes, tilt = body.bone
    c, s = np.cos(tilt), np.sin(tilt)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * half_axes @ [[c, s], [-s, c]]
    angle = np.linspace(-0.9, 0.9, 15) * body.probe.half_angle
    face = body.probe.from_polar(np.zeros(15), angle)
    held = np.concatenate([bone + ring, bone + 0.5 * ring, face, body.edge[None]])
    for state in body.states(5)[1:]:
        np.testing.assert_allclose(integrate(held, body.velocity(state)), held, atol=1e-9)
        moved = body.edge + body.mm_per_point * state[EDGE]
        np.testing.assert_allclose(body.pose(state).place(body.edge), moved)


@pytest.mark.parametrize("body", BODIES["heart"])
def test_hearts_beat_as_hearts_do(body: Heart) -> None:
    beating = body.parameters.beating
    states = body.states(241)
    squeeze, valve = states[:, CONTRACTION], states[:, VALVE]
    first = squeeze[: int(200 / beating.beats)]
    assert abs(first.argmax() / 240 * beating.beats - beating.systole) < 0.12
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
        grid = Grid.over(np.array([-70.0, 10.0]), np.array([70.0, HEART.probe.depth]), 1.0)
        nodes = HEART.pose(state).remove(grid.points)
        back = integrate(nodes, HEART.velocity(state), backwards=True)
        down, right = (np.asarray(v) for v in np.gradient(back, grid.z, grid.x, axis=(0, 1)))
        size = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
        size = size[HEART.probe.inside(grid.points, 2.0)]
        # Blood is pressed out of the plane, so the cavity halves.
        assert size.min() > 0.1 and np.percentile(size, 5) > 0.5 and np.percentile(size, 95) < 2.0


GREYS = {
    "pelvic": "0000000000000000000e3713113611000139595852635302100a224a43574c2b"
    "110129544757694f030420173e4a4f4f0002100b231e13020000000000000000",
    "heart": "000000312c00000000001a6d61150000000c484c434406000a42442b21531902"
    "252c37291d5c2a113134132709422f1c343c2a28184c3518001d2e342b1a0f00",
}


@pytest.mark.parametrize(("name", "way"), [("pelvic", 2.852), ("heart", 2.789)])
def test_a_seed_gives_the_pictures_and_the_field_of_this_version(name: str, way: float) -> None:
    """A change that fails this gives other pixels: `generate.VERSION` must be raised."""
    assert VERSION == 1
    body = BODIES[name][0]
    states = body.states(40)[[0, 14]]
    _, (image, displacement) = film(body, states, 7, [1, 2])
    means = image.reshape(8, 32, 8, 32).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(means, list(bytes.fromhex(GREYS[name])), atol=1.0)
    assert np.abs(displacement[body.probe.sector()]).mean() == pytest.approx(way, abs=2e-3)
    start, now = body.landmark_pixels(states)
    # Exact at the landmark; between pixels it is read bilinearly and kept to 1/512 px.
    led = now + read_at(displacement, now[None])[0]
    np.testing.assert_allclose(led, start, rtol=0, atol=0.05)


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
    assert said in (body.why_impossible(state[None]) or "")


def test_the_manuals_smallest_anatomy_is_whole(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "phantom-anatomy.md"
    code = tmp_path / "cyst.py"
    code.write_text(page.read_text(encoding="utf-8").split("```python\n")[-1].split("```")[0])
    made = runpy.run_path(str(code))["Cyst"]
    body = made(made.draw(np.random.default_rng(3)))
    states = body.states(5)
    assert body.why_impossible(states) is None and out_of_range(body.parameters) is None
    assert max(body.map_error(state) for state in states) < 0.1
    (shot,) = film(body, states[2:3], 1)
    assert shot.image.max() > 100
