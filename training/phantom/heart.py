"""The heart from its apex, in the four-chamber plane, beating.

Probe on top; the left ventricle hangs from its apex, the septum and the right ventricle to its
left, the lateral wall to its right, the atria below. State 0 is the end of diastole. The state is
(apex x, z; lateral and septal end of the mitral annulus x, z: points; contraction: share of the
endocardium's radius; valves: -1 closed, 0 ajar as at rest, 1 open; sway x, z: points; probe angle:
radians).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np

from .body import Body
from .courses import Beating
from .heart_tissue import paint
from .motion import Pose, Velocity, face_distance, smooth
from .probe import PERSISTENCE, Display, FloatArray, Point, Probe, Range, Seed, evenly

CONTRACTION, VALVE, SWAY, PROBE_ANGLE = 6, 7, slice(8, 10), 10
_WIDEST = 0.6  # where along the axis the ventricle is widest; it is a cut ellipse about there
_APEX_REACH = 24.0
_ATRIAL_REACH = 24.0  # mm below the annulus over which its way dies out
_VALVE_WAY = 6.0  # about how many mm a leaflet's tip goes from ajar to open or closed
_VALVE_REACH = 7.0


@dataclass(frozen=True)
class HeartParameters:
    """One subject. Lengths in mm; ranges are wider than the population."""

    probe: Probe
    display: Display
    apex: Point  # of the left ventricle's cavity at the end of diastole, a keypoint
    lateral: Point  # where the mitral leaflets are hinged: the other two keypoints
    septal: Point
    septum: Annotated[float, Range(3, 25)]  # its thickness
    wall: Annotated[float, Range(3, 25)]  # thickness of the lateral wall
    right: Annotated[float, Range(10, 70)]  # width of the right ventricle at its base
    offset: Annotated[float, Range(-10, 25)]  # how much nearer to the apex the tricuspid valve is
    atria: Annotated[tuple[float, float], Range(10, 90)]  # length of the left and the right one
    coaptation: Annotated[float, Range(-0.8, 0.8)]  # where the leaflets meet; 1: lateral hinge
    clutter: Annotated[float, Range(-60, 20)]  # strength of the haze before the apex, dB
    window: Annotated[tuple[float, float], Range(0, 60)]  # shadow at the left and right side, dB
    beating: Beating
    seed: Seed  # of tissue grain


class Frame(NamedTuple):
    """Coordinates of a ventricle: s from the apex along the axis, u across, in parallel with the
    annulus and positive towards the lateral wall; both mm. ``half``: of the annulus."""

    apex: FloatArray
    along: FloatArray
    across: FloatArray
    length: float
    half: float

    @classmethod
    def of(cls, landmarks: FloatArray) -> Frame:
        """From the keypoints (3, 2)."""
        apex, lateral, septal = landmarks
        axis, annulus = (lateral + septal) / 2 - apex, lateral - septal
        length, width = float(np.hypot(*axis)), float(np.hypot(*annulus))
        return cls(apex, axis / length, annulus / width, length, width / 2)

    def coordinates(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(2, ...) mm -> s and u."""
        x, z = points[0] - self.apex[0], points[1] - self.apex[1]
        (ax, az), (cx, cz) = self.along, self.across
        area = ax * cz - az * cx
        return (x * cz - z * cx) / area, (ax * z - az * x) / area

    def place(self, s: FloatArray | float, u: FloatArray | float) -> FloatArray:
        """s and u -> mm (..., 2)."""
        return self.apex + np.multiply.outer(s, self.along) + np.multiply.outer(u, self.across)


class Heart(Body):
    """A subject's heart."""

    Parameters = HeartParameters
    keypoint_names = ("apex", "mitral_lateral", "mitral_septal")

    def __init__(self, parameters: HeartParameters) -> None:
        p = parameters
        super().__init__(p, np.array([p.apex, p.lateral, p.septal]))
        self.frame = Frame.of(self.rest)
        # The cut ellipse's half width, from its width at the annulus.
        self.radius = self.frame.half / float(np.sqrt(1 - ((1 - _WIDEST) / _WIDEST) ** 2))
        self.tricuspid = -(self.frame.half + 0.8 * p.septum + 0.5 * p.right)

    def half_width(self, share: FloatArray) -> FloatArray:
        """Half the width of the ventricle's cavity at rest, mm; ``share``: of the axis, 0 to 1."""
        return self.radius * np.sqrt(np.maximum(1 - ((share - _WIDEST) / _WIDEST) ** 2, 0))

    tissue = paint

    def impossible(self, state: FloatArray) -> str | None:
        places = self.pose(state).remove(self.landmarks(state))
        now, rest = Frame.of(places), self.frame
        if not 0.68 <= (share := now.length / rest.length) <= 1.12:
            return f"the ventricle is {share:.0%} as long as at rest (68 to 112 % is possible)"
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
        b, state = self.parameters.beating, np.zeros((frames, 11))
        squeeze, *ends, valve, sway, tilt = b.courses(np.linspace(0, 1, frames))
        up, inward = -self.frame.along, self.frame.across
        way = np.zeros((frames, 3, 2))
        way[:, 0] = squeeze[:, None] * np.array(b.apex)
        for i, (course, sign) in enumerate(zip(ends, (-1.0, 1.0), strict=True)):
            side = sign * b.narrowing * self.frame.half * squeeze
            way[:, 1 + i] = b.annulus[i] * course[:, None] * up + side[:, None] * inward
        for row, step, angle, shift in zip(state, way, tilt, sway, strict=True):
            # In the picture the heart is carried along by the probe's sway.
            pose = Pose(angle, np.zeros(2), shift)
            row[:CONTRACTION] = (pose.place(self.rest + step) - self.rest).ravel()
        state[:, :CONTRACTION] /= self.mm_per_point
        state[:, CONTRACTION] = b.contraction * squeeze
        state[:, VALVE] = valve
        state[:, SWAY] = sway / self.mm_per_point
        state[:, PROBE_ANGLE] = tilt
        return state

    def out_of_plane(self, frames: int) -> FloatArray:
        """The heart twists as it contracts."""
        b = self.parameters.beating
        return b.out_of_plane * b.courses(np.linspace(0, 1, frames))[0]

    def velocity(self, state: FloatArray) -> Velocity:
        way = self.pose(state).remove(self.landmarks(state)) - self.rest
        squeeze, valve = float(state[CONTRACTION]), float(state[VALVE])

        def velocity(points: FloatArray, time: float) -> FloatArray:
            places = self.rest + time * way
            frame = Frame.of(places)
            # Whatever else moves, each keypoint must go along its way: solve for the moves of
            # three weights, one for each keypoint.
            n = points.shape[1]
            both = np.concatenate([points, places.T], axis=1)
            s, u = frame.coordinates(both)
            # Nothing beats at the probe's face.
            held = smooth(face_distance(both, self.probe.radius)[0] / 20.0)
            v = held * self._beat(frame, s, u, squeeze, valve, time)
            weights = held * self._weights(frame, both, s, u)
            moves = np.linalg.solve(weights[:, n:].T, way - v[:, n:].T)
            return v[:, :n] + moves.T @ weights[:, :n]

        return velocity

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

    def pose(self, state: FloatArray) -> Pose:
        """The probe tilts about its face."""
        return Pose(float(state[PROBE_ANGLE]), np.zeros(2), self.mm_per_point * state[SWAY])

    @staticmethod
    def unfit(parameters: HeartParameters) -> str | None:
        with np.errstate(invalid="ignore"):
            f = Frame.of(np.array([parameters.apex, parameters.lateral, parameters.septal]))
        if not 40 <= f.length <= 130:
            return f"apex is {f.length:.1f} mm from the middle of lateral and septal (40 to 130)"
        if not 7.5 <= f.half <= 30:
            return f"lateral and septal are {2 * f.half:.1f} mm apart: they must be 15 to 60"
        if f.along[1] * f.across[0] - f.along[0] * f.across[1] < 0.7:
            return "lateral must lie right of septal, the two across the axis from apex to them"
        return None

    @staticmethod
    def draw(rng: np.random.Generator) -> HeartParameters:
        """Sizes of adults in the four-chamber view (Lang et al., J Am Soc Echocardiogr 2015)."""
        between = partial(evenly, rng)
        apex = np.array([between(-2, 16), between(26, 35)])
        tilt, slant = np.radians(between(-10, 12)), np.radians(between(-8, 8))
        length, half = between(72, 90), between(14.5, 18.5)
        middle = apex + length * np.array([np.sin(tilt), np.cos(tilt)])
        across = half * np.array([np.cos(tilt - slant), -np.sin(tilt - slant)])
        lateral, septal = middle + across, middle - across
        places = (tuple(round(float(v), 3) for v in place) for place in (apex, lateral, septal))
        atria = (between(38, 50), between(36, 46))
        depth = round(float(np.clip(middle[1] + atria[0] + between(2, 14), 130, 172)), 3)
        probe = Probe(
            frequency=between(2.0, 3.5), radius=between(8, 15), angle=between(75, 90), depth=depth,
            zoom=between(0.4, 1.0), focus=between(0.4, 0.65) * depth, axial=between(0.8, 1.0),
            lateral=between(2.0, 2.5),
        )  # fmt: skip
        persistence = PERSISTENCE[rng.integers(3)]
        display = Display(
            dynamic_range=between(52, 60), white=between(15, 21), gamma=between(1.15, 1.6),
            noise=between(52, 60), gain=between(0.14, 0.17), persistence=persistence,
            frame_rate=between(30, 50),
        )  # fmt: skip
        strength = between(0.75, 1.15)
        beating = Beating(
            beats=between(1.5, 3.0), systole=between(0.32, 0.39), kick=between(0.18, 0.35),
            uneven=between(0.02, 0.07), contraction=round(between(0.24, 0.32) * strength, 3),
            annulus=(round(between(11.5, 15) * strength, 3), round(between(9, 12.5) * strength, 3)),
            narrowing=between(0.05, 0.14), apex=(between(-1.2, 1.2), between(-0.5, 1.8)),
            breath=between(0.2, 1.5), breaths=between(0.3, 0.8), sway=between(0.5, 2.0),
            tilt=between(0.5, 2.0), out_of_plane=between(0.3, 1.2), seed=int(rng.integers(2**31)),
        )  # fmt: skip
        # In the order of the fields: septum, wall, right, offset; coaptation, clutter, window.
        sizes = [between(*usual) for usual in ((8, 11.5), (8, 11.5), (28, 38), (4, 8))]
        seen = between(0.1, 0.35), between(-12, -3), (between(0, 14), between(2, 18))
        seed = int(rng.integers(2**31))
        return HeartParameters(probe, display, *places, *sizes, atria, *seen, beating, seed)


def _step(t: FloatArray) -> FloatArray:
    """`motion.smooth` but for the last bit: a power would take most of the time."""
    t = np.clip(t, 0, 1)
    return t * t * t * (t * (6 * t - 15) + 10)
