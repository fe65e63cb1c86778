"""Hearts: landmarks exact through the flow, the cycle, true predictions, pictures, a folder."""

from __future__ import annotations

import csv
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sonomime.training.phantom.anatomy import map_error, why_impossible
from sonomime.training.phantom.beam import DENSITY, density
from sonomime.training.phantom.generate import Settings, generate
from sonomime.training.phantom.heart import CONTRACTION, SWAY, VALVE, Heart
from sonomime.training.phantom.heart_subjects import draw, unfit
from sonomime.training.phantom.probe import Probe
from sonomime.training.phantom.render import Renderer
from sonomime.training.phantom.subject import film, landmark_pixels
from sonomime.training.phantom.tissue_map import Grid, integrate


def heart(number: int) -> Heart:
    return Heart(draw(np.random.default_rng([5, number])))


BODY, OTHER = heart(0), heart(1)


def extremes(body: Heart) -> np.ndarray:
    """The end of systole, the valves wide open, and the moment of the strongest sway."""
    states: np.ndarray = body.states(121)
    sway = np.hypot(*states[:, SWAY].T)
    chosen = [int(v.argmax()) for v in (states[:, CONTRACTION], states[:, VALVE], sway)]
    return np.asarray(states[chosen])


@pytest.mark.parametrize("number", range(4))
def test_the_flow_carries_the_landmarks_exactly(number: int) -> None:
    """To a millionth of a millimetre: the pushes are solved for at every moment, not fitted."""
    body = heart(number)
    for state in extremes(body):
        velocity, pose = body.motion(state)
        carried = pose.place(integrate(body.rest, velocity))
        np.testing.assert_allclose(carried, body.landmarks(state), rtol=0, atol=1e-6)


def test_the_map_can_be_inverted_and_keeps_tissue_about_its_size() -> None:
    probe = BODY.probe
    low, high = np.array([-70.0, 10.0]), np.array([70.0, probe.depth])
    for state in extremes(BODY):
        velocity, pose = BODY.motion(state)
        grid = Grid.over(low, high, 1.0)
        points = grid.points
        seen = probe.inside(points, 2.0)
        back = integrate(pose.remove(points), velocity, backwards=True)
        again = pose.place(integrate(back, velocity))
        assert np.abs(again - points)[seen].max() < 0.02
        down, right = (np.asarray(v) for v in np.gradient(back, grid.z, grid.x, axis=(0, 1)))
        size = (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0])[seen]
        assert size.min() > 0.1  # nothing folds
        # Blood is pressed out of the plane, so that the cavity halves.
        assert np.percentile(size, 5) > 0.5
        assert np.percentile(size, 95) < 2.0


def test_the_clip_starts_at_the_end_of_diastole() -> None:
    for frames in (1, 2, 30):
        states = BODY.states(frames)
        assert states.shape == (frames, 11)
        np.testing.assert_array_equal(states[0], 0)
        assert BODY.out_of_plane(frames).shape == (frames,)
    np.testing.assert_array_equal(BODY.landmarks(np.zeros(11)), BODY.rest)
    velocity, pose = BODY.motion(np.zeros(11))
    points = np.random.default_rng(0).uniform(0, 100, (50, 2))
    np.testing.assert_array_equal(pose.place(integrate(points, velocity)), points)


@pytest.mark.parametrize("number", range(8))
def test_hearts_beat_as_hearts_do(number: int) -> None:
    body = heart(number)
    beating = body.parameters.beating
    assert unfit(body.parameters) is None
    assert why_impossible(body, body.states(33)) is None
    states = body.states(241)
    squeeze, valve = states[:, CONTRACTION], states[:, VALVE]
    # As many systoles as beats have begun, each about as long as it should be.
    begun = np.flatnonzero(np.diff((squeeze > 0.9 * beating.contraction * 0.85).astype(int)) == 1)
    assert 1 <= len(begun) <= np.ceil(beating.beats) + 1
    first = squeeze[: int(200 / beating.beats)]
    assert abs(first.argmax() / 240 * beating.beats - beating.systole) < 0.12
    assert 0.15 < first.max() < 0.45
    ejecting = (np.diff(squeeze) > 0) & (squeeze[1:] > 0.3 * first.max())
    assert valve[1:][ejecting].max() < -0.9  # shut
    assert valve.max() > 0.6
    # The annulus goes 6 to 18 mm towards the apex, which stays where it is but for the sway.
    quiet = replace(body.parameters, beating=replace(beating, sway=0.0, tilt=0.0, breath=0.0))
    still = Heart(quiet)
    ways = np.stack([still.landmarks(s) - still.rest for s in still.states(241)])
    towards = -ways @ still.frame.along
    assert np.all((towards[:, 1:].max(axis=0) > 6) & (towards[:, 1:].max(axis=0) < 18.5))
    assert np.abs(ways[:, 0]).max() < 3


def test_the_endocardium_moves_in_and_the_wall_thickens() -> None:
    p = BODY.parameters
    state = extremes(BODY)[0]
    frame, share = BODY.frame, 0.55
    inner = float(BODY.half_width(np.array(share)))
    at = np.array([inner, inner + p.wall])
    points = frame.place(np.full(2, share * frame.length), at)
    velocity, pose = BODY.motion(state)
    moved = pose.remove(pose.place(integrate(points, velocity)))
    now = type(frame).of(pose.remove(BODY.landmarks(state)))
    _, u = now.coordinates(moved.T)
    assert 0.6 < u[0] / inner < 0.9
    assert 1.1 < (u[1] - u[0]) / p.wall < 1.6


def test_a_true_prediction_moves_the_landmarks_as_the_other_heart_moves_its_own() -> None:
    states = OTHER.states(9)
    states = states - states[0]
    assert why_impossible(BODY, states) is None
    own, other = (landmark_pixels(b, states) for b in (BODY, OTHER))
    expected = own[0] + other - other[0]  # p_A + p_B(t) - p_B(0), in the pixels of one picture size
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-3)
    velocity, pose = BODY.motion(states[3])
    carried = BODY.probe.to_pixels(pose.place(integrate(BODY.rest, velocity)))
    np.testing.assert_allclose(carried, expected[3], rtol=0, atol=1e-3)


def test_pictures_are_the_same_again_and_the_displacement_carries_the_landmarks() -> None:
    states = BODY.states(40)[[0, 8]]
    shots, again = (list(film(BODY, states, 7, [1, 2])) for _ in range(2))
    for one, other in zip(shots, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.displacement, other.displacement)
    places = landmark_pixels(BODY, states)
    sector = BODY.probe.sector()
    for shot, now in zip(shots, places, strict=True):
        assert not shot.image[cv2.dilate(sector.astype(np.uint8), np.ones((3, 3))) == 0].any()
        way = cv2.remap(
            shot.displacement, now[:, 0].copy(), now[:, 1].copy(), cv2.INTER_LINEAR
        ).reshape(3, 2)
        # Exact at the landmark; between pixels it is read bilinearly and kept to 1/512 px.
        np.testing.assert_allclose(now + way, places[0], rtol=0, atol=0.05)
    assert np.abs(shots[0].displacement).max() <= 1 / 512


def test_blood_is_dark_and_muscle_is_grey() -> None:
    renderer = Renderer(BODY, 3)
    level = 20 * np.log10(renderer.view(np.zeros(11)).envelope + 1e-6)
    frame, p = BODY.frame, BODY.parameters
    share = np.linspace(0.4, 0.75, 40)
    wall = BODY.half_width(share)
    offsets = {"blood": np.linspace(-0.4, 0.2, 40) * wall, "septum": -wall - 0.5 * p.septum}
    seen = {}
    for name, u in offsets.items():
        depth, angle = BODY.probe.to_polar(frame.place(share * frame.length, u))
        row = (depth / renderer.beam.step).astype(int)
        line = (angle / renderer.beam.pitch + (renderer.beam.lines - 1) / 2).astype(int)
        seen[name] = float(np.median(level[row, line]))
    assert seen["septum"] - seen["blood"] > 9


def test_speckle_is_full_and_only_large_cells_get_fewer_scatterers() -> None:
    p = BODY.parameters.probe
    assert 10 <= density(p) * p.axial * p.lateral <= DENSITY + 1e-9
    fine = Probe(5.0, 50.0, 80.0, 80.0, 0.5, 40.0, 0.65, 1.5)
    assert density(fine) == DENSITY


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({3: -0.3, 5: -0.3}, "as long as at rest"),
        ({2: -0.35, 4: 0.35}, "squeezed shut"),
        ({CONTRACTION: 0.7}, "contracts by 70 %"),
        ({VALVE: 2.0}, "wider than open"),
        ({1: -0.3, 3: -0.3, 5: -0.3}, "pressed into the probe"),
        ({2: 5.0}, "mitral_lateral lies outside of the sector in frame 0"),
    ],
)
def test_impossible_states_are_refused_with_a_sentence(change: dict[int, float], said: str) -> None:
    state = np.zeros(11)
    state[list(change)] = list(change.values())
    assert said in (why_impossible(BODY, state[None]) or "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"septal": BODY.parameters.lateral}, "0.0 mm apart"),
        ({"septal": BODY.parameters.lateral, "lateral": BODY.parameters.septal}, "to the right"),
        ({"apex": (5.0, 400.0)}, "apex lies at a depth of 400 mm"),
        ({"lateral": (300.0, 100.0)}, "outside of the sector"),
        ({"apex": (5.0, 100.0)}, "to the middle of the annulus"),
        ({"septum": 0.0}, "septum is 0"),
        ({"beating": replace(BODY.parameters.beating, beats=50.0)}, "beating.beats is 50"),
    ],
)
def test_parameters_that_nobody_can_have_are_named(change: dict[str, Any], said: str) -> None:
    assert said in (unfit(replace(BODY.parameters, **change)) or "")


def test_a_folder_of_hearts_has_the_tables(tmp_path: Path) -> None:
    generate(tmp_path, Settings("heart", 3, 5, 2, 0), 1)
    clips = list(csv.DictReader((tmp_path / "clips.csv").open()))
    names = [f"heart3-{i:03d}" for i in range(5)]
    assert [row["subject"] for row in clips] == names
    assert [row["split"] for row in clips] == ["train"] * 4 + ["test"]
    assert {row["group"] for row in clips} == {"heart"}
    labels = list(csv.DictReader((tmp_path / "keypoints.csv").open()))
    assert [row["keypoint"] for row in labels[:3]] == ["apex", "mitral_lateral", "mitral_septal"]
    assert len(labels) == 5 * 2 * 3
    for name in names:
        assert (tmp_path / "clips" / f"{name}.mkv").stat().st_size > 0
        arrays = np.load(tmp_path / "displacement" / f"{name}.npz")
        assert arrays["displacement"].shape == (2, 256, 256, 2)
        assert arrays["displacement"].dtype == np.float32
        assert arrays["sector"].any()


def test_the_manual_s_smallest_anatomy_is_whole(tmp_path: Path) -> None:
    """The page's last block of code draws, moves and shows a body."""
    page = Path(__file__).parents[3] / "docs" / "phantom-anatomy.md"
    code = tmp_path / "cyst.py"
    code.write_text(page.read_text(encoding="utf-8").split("```python\n")[-1].split("```")[0])
    made = runpy.run_path(str(code))
    body = made["Cyst"](made["draw"](np.random.default_rng(3)))
    states = body.states(5)
    assert why_impossible(body, states) is None
    assert max(map_error(body, state) for state in states) < 0.1
    (shot,) = film(body, states[2:3], 1)
    assert shot.image.max() > 100
