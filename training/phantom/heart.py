"""The heart from its apex, in the four-chamber plane, beating.

Probe on top; the left ventricle hangs from its apex, the septum and the right ventricle to its
left, the lateral wall to its right, the atria below. State 0 is the end of diastole. The state is
(apex x, z; lateral and septal end of the mitral annulus x, z: points; contraction: share of the
endocardium's radius; valves: -1 closed, 0 ajar as at rest, 1 open; sway x, z: points; probe angle:
radians).
"""

from __future__ import annotations

import numpy as np

from .arrays import FloatArray
from .flow import circle_distance, ramp
from .heart_cycle import courses
from .heart_shape import Frame, HeartShape
from .heart_tissue import paint
from .paint import Canvas
from .tissue_map import Grid, Motion, Pose

CONTRACTION, VALVE, SWAY, PROBE_ANGLE, STATE = 6, 7, slice(8, 10), 10, 11
_APEX_REACH = 24.0
_ATRIAL_REACH = 24.0  # mm below the annulus over which its way dies out
_VALVE_WAY = 6.0  # about how many mm a leaflet's tip goes from ajar to open or closed
_VALVE_REACH = 7.0


class Heart(HeartShape):
    """A subject as a Body (body.py)."""

    keypoint_names = ("apex", "mitral_lateral", "mitral_septal")

    def tissue(self, grid: Grid) -> Canvas:
        return paint(self, grid)

    def impossible(self, state: FloatArray) -> str | None:
        places = self._pose(state).remove(self.landmarks(state))
        now, rest = Frame.of(places), self.frame
        if not 0.68 <= now.length / rest.length <= 1.12:
            return (
                f"the ventricle is {100 * now.length / rest.length:.0f} % as long as at rest "
                "(68 to 112 is possible)"
            )
        if now.half < 0.6 * rest.half or now.across @ rest.across < 0.7:
            return "the mitral annulus is squeezed shut or turned over"
        if not -0.15 <= state[CONTRACTION] <= 0.5:
            return f"the ventricle contracts by {100 * state[CONTRACTION]:.0f} % (-15 to 50)"
        if abs(state[VALVE]) > 1.3:
            return "the valves are wider than open or tighter than closed"
        if self.probe.to_polar(places[0])[0] < 14:
            return "the apex is pressed into the probe"
        return None

    def states(self, frames: int) -> FloatArray:
        b, mm = self.parameters.beating, self.mm_per_point
        c = courses(b, np.linspace(0, 1, frames))
        state = np.zeros((frames, STATE))
        up, inward = -self.frame.along, self.frame.across
        way = np.zeros((frames, 3, 2))
        way[:, 0] = c.squeeze[:, None] * np.array(b.apex)
        for i, (course, sign) in enumerate(((c.lateral, -1.0), (c.septal, 1.0))):
            side = sign * b.narrowing * self.frame.half * c.squeeze
            way[:, 1 + i] = b.annulus[i] * course[:, None] * up + side[:, None] * inward
        for row, step, tilt, shift in zip(state, way, c.tilt, c.sway, strict=True):
            # In the picture the heart is carried along by the probe's sway.
            pose = Pose(tilt, np.zeros(2), shift)
            row[:CONTRACTION] = (pose.place(self.rest + step) - self.rest).ravel()
        state[:, :CONTRACTION] /= mm
        state[:, CONTRACTION] = b.contraction * c.squeeze
        state[:, VALVE] = c.valve
        state[:, SWAY] = c.sway / mm
        state[:, PROBE_ANGLE] = c.tilt
        return state

    def out_of_plane(self, frames: int) -> FloatArray:
        """The heart twists as it contracts."""
        b = self.parameters.beating
        return b.out_of_plane * courses(b, np.linspace(0, 1, frames)).squeeze

    def motion(self, state: FloatArray) -> Motion:
        pose = self._pose(state)
        way = pose.remove(self.landmarks(state)) - self.rest
        squeeze, valve = float(state[CONTRACTION]), float(state[VALVE])

        def velocity(points: FloatArray, time: float) -> FloatArray:
            places = self.rest + time * way
            frame = Frame.of(places)
            # Whatever else moves, each keypoint must go along its way: solve for the moves of
            # three weights, one for each keypoint.
            n = points.shape[1]
            both = np.concatenate([points, places.T], axis=1)
            s, u = frame.coordinates(both)
            held = self._held(both)
            v = held * self._beat(frame, s, u, squeeze, valve, time)
            weights = held * self._weights(frame, both, s, u)
            moves = np.linalg.solve(weights[:, n:].T, way - v[:, n:].T)
            return v[:, :n] + moves.T @ weights[:, :n]

        return Motion(velocity, pose)

    def _weights(
        self, frame: Frame, points: FloatArray, s: FloatArray, u: FloatArray
    ) -> FloatArray:
        """How much each keypoint takes points (2, N) with it, (3, N): the apex what is around it,
        the annulus the tops of the atria, and the ventricles, less towards the apex."""
        gap = points - frame.apex[:, None]
        apex = np.exp(-0.5 * (gap * gap).sum(axis=0) / _APEX_REACH**2)
        below = s - frame.length
        t = below / np.where(below < 0, 0.48 * frame.length, _ATRIAL_REACH)
        # The right ventricle's base goes further than the septum.
        base = np.exp(-0.5 * t * t - (((u + 22) / 72) ** 2) ** 2)
        base *= 1 + 0.35 * _step(-(u + frame.half) / (2 * self.radius))
        lateral = _step(0.5 + 0.4 * u / frame.half)
        return np.stack([apex, base * lateral, base * (1 - lateral)])

    def _beat(
        self, frame: Frame, s: FloatArray, u: FloatArray, squeeze: float, valve: float, time: float
    ) -> FloatArray:
        """Contraction and valves, in the frame of the moment: v (2, N)."""
        p, share = self.parameters, s / frame.length
        active = _step((share + 0.25) / 0.55) * (1 - _step((share - 0.7) / 0.6))
        radius = self.radius * (0.5 + 0.5 * _step((share + 0.05) / 0.5))
        q = u / (radius * (1 - squeeze * time * active))
        # Blood is drawn together; beyond the endocardium (q = 1) the way falls off faster than the
        # 1/q of a tube, because the walls also thicken by what they shorten.
        across = -np.sqrt(2) * squeeze * active * radius * q / np.sqrt(1 + (q * q) ** 4)
        free = (u - self.tricuspid + 0.4 * p.right) / 14, (share - 0.55) / 0.35
        across += 22 * squeeze * np.exp(-0.5 * (free[0] ** 2 + free[1] ** 2))
        along = np.zeros_like(across)
        if valve:
            middle = p.coaptation * frame.half
            for centre, above in ((middle, 0.0), (self.tricuspid, p.offset)):
                x = (u - centre) / _VALVE_REACH
                tip = (s - frame.length + above + 13) / _VALVE_REACH
                bell = valve * np.exp(0.5 - 0.5 * (x * x + tip * tip))
                across += _VALVE_WAY * x * bell
                along -= 2.0 * bell
        return along * frame.along[:, None] + across * frame.across[:, None]

    def _held(self, points: FloatArray) -> FloatArray:
        """Nothing beats at the probe's face: a factor (N,)."""
        face = circle_distance(points, np.array([0, -self.probe.radius]), self.probe.radius)
        return ramp(*face, 20.0).w

    def _pose(self, state: FloatArray) -> Pose:
        """The probe tilts about its face."""
        return Pose(float(state[PROBE_ANGLE]), np.zeros(2), self.mm_per_point * state[SWAY])


def _step(t: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(t, 0, 1)
    return t * t * t * (t * (6 * t - 15) + 10)  # a power would take most of the time
