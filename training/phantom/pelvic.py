"""The pelvic floor from the perineum, in the midsagittal plane, during a Valsalva manoeuvre.

Probe on top; the symphysis upper left, the anal canal to the right, the bladder deep in the middle.
The state is (bladder neck x, z; symphysis x, z; levator: points; urethral rotation, probe angle:
radians; breathing: points).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arrays import FloatArray
from .flow import Stream, circle_distance, ellipse_distance, push, ramp, turn
from .manoeuvre import breathing, strain, sway
from .paint import Canvas
from .pelvic_shape import PelvicShape
from .pelvic_tissue import paint
from .tissue_map import Grid, Motion, Pose

NECK, EDGE = slice(0, 2), slice(2, 4)
_REACH = np.array([15.5, 23.0])
_BEHIND = np.array([8.0, 3.0])  # mm from the neck: most of what moves is behind it
_SPILL = 0.65  # share of the push that returns beside the midsagittal plane
_TURN_REACH = 10.0
_LEVATOR_REACH = np.array([13.0, 13.0])
_BREATH_REACH = np.array([45.0, 30.0])
LEVATOR, ROTATION, PROBE_ANGLE, BREATH = 4, 5, 6, 7


class Pelvic(PelvicShape):
    """A subject as a Body (body.py)."""

    keypoint_names = ("bladder_neck", "symphysis")
    node = 1.25  # with 2.0 the field is off by pixels between the symphysis and what passes it

    def tissue(self, grid: Grid) -> Canvas:
        return paint(self, grid)

    def impossible(self, state: FloatArray) -> str | None:
        target = self._pose(state).remove(self.landmarks(state)[0])
        bone, _ = ellipse_distance(target, self.bone, self.bone_axes, self.bone_angle)
        if bone < 5:
            return "the bladder neck (neck) is pressed into the symphysis (edge, symphysis)"
        if np.hypot(target[0], target[1] + self.probe.radius) - self.probe.radius < 12:
            return "the bladder neck (neck) is pressed into the probe"
        return None

    def states(self, frames: int) -> FloatArray:
        m, mm = self.parameters.manoeuvre, self.mm_per_point
        time = np.linspace(0, 1, frames)
        effort = strain(time, m.start, m.peak, m.release, m.left)
        # The neck travels on an arc about the edge, nearer to the probe and to the dorsal side.
        arm = self.neck - self.edge
        reach, angle = np.hypot(*arm), float(np.arctan2(arm[1], arm[0]))
        across = reach * np.cos(angle - np.radians(m.opening))
        end = self.edge + np.array([across, reach * np.sin(angle) - m.descent])
        state = np.zeros((frames, 8))
        path = _arc(self.edge, self.neck, end)
        state[:, NECK] = np.array([path(e) for e in effort]) - self.neck
        state[:, LEVATOR] = m.levator * effort
        state[:, ROTATION] = np.radians(m.rotation) * effort
        state[:, BREATH] = breathing(time, m.breath, m.breaths, effort)
        state[:, EDGE], state[:, PROBE_ANGLE] = sway(m.seed, time, m.sway, m.tilt)
        # In the picture the neck is carried along by the probe's sway.
        for row in state:
            pose_of = Pose(float(row[PROBE_ANGLE]), self.edge, row[EDGE])
            row[NECK] = pose_of.place(self.neck + row[NECK]) - self.neck
        lengths = [0, 1, 2, 3, LEVATOR, BREATH]
        state[:, lengths] /= mm
        return state

    def out_of_plane(self, frames: int) -> FloatArray:
        m = self.parameters.manoeuvre
        time = np.linspace(0, 1, frames)
        return m.out_of_plane * strain(time, m.start, m.peak, m.release, m.left)

    def motion(self, state: FloatArray) -> Motion:
        mm = self.mm_per_point
        pose = self._pose(state)
        target = pose.remove(self.landmarks(state)[0])
        path = _arc(self.edge, self.neck, target)
        levator = mm * float(state[LEVATOR]) * np.array([0.45, -0.9])
        breath = np.array([0.2, 1.0]) * mm * float(state[BREATH])
        rotation = float(state[ROTATION])
        # A longer way takes more tissue with it.
        reach = _REACH + 0.1 * float(np.linalg.norm(target - self.neck))

        def around(points: FloatArray, time: float) -> Stream:
            return (
                turn(points, path(time), rotation, _TURN_REACH)
                + push(points, self.levator_rest + time * levator, levator, _LEVATOR_REACH, _SPILL)
                + push(points, self.deep, breath, _BREATH_REACH)
            )

        def velocity(points: FloatArray, time: float) -> FloatArray:
            neck, step = path(time), 1e-4
            centre = neck + _BEHIND
            wanted = (path(time + step) - path(time - step)) / (2 * step)
            # The field is linear in the push. Two trials give the push that carries the neck along
            # its path, whatever else moves.
            here = neck[:, None]
            rest = self._held(here, around(here, time)).v[:, 0]
            trials = [
                self._held(here, push(here, centre, unit, reach, _SPILL)).v for unit in np.eye(2)
            ]
            across = np.concatenate(trials, axis=1)
            move = np.linalg.solve(across, wanted - rest)
            all_of_it = push(points, centre, move, reach, _SPILL) + around(points, time)
            return self._held(points, all_of_it).v

        return Motion(velocity, pose)

    def _held(self, points: FloatArray, stream: Stream) -> Stream:
        """Nothing moves in the bone or at the probe's face."""
        bone = ellipse_distance(points, self.bone, self.bone_axes, self.bone_angle)
        face = circle_distance(points, np.array([0, -self.probe.radius]), self.probe.radius)
        return ramp(*face, 16.0).hold(ramp(*bone, 13.0).hold(stream))

    def _pose(self, state: FloatArray) -> Pose:
        return Pose(float(state[PROBE_ANGLE]), self.edge, self.mm_per_point * state[EDGE])


def _arc(pivot: FloatArray, start: FloatArray, end: FloatArray) -> Callable[[float], FloatArray]:
    """The path from start to end about a pivot: angle and radius change evenly."""
    a, b = start - pivot, end - pivot
    radius = np.hypot(*a), np.hypot(*b)
    first = np.arctan2(a[1], a[0])
    swing = (np.arctan2(b[1], b[0]) - first + np.pi) % (2 * np.pi) - np.pi

    def at(share: float) -> FloatArray:
        angle, length = first + share * swing, radius[0] + share * (radius[1] - radius[0])
        return pivot + length * np.array([np.cos(angle), np.sin(angle)])

    return at
