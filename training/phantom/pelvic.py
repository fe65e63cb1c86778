"""The pelvic floor from the perineum, in the midsagittal plane, during a Valsalva manoeuvre.

Probe on top; the symphysis upper left, the anal canal to the right, the bladder deep in the middle.
The state is (bladder neck x, z; symphysis x, z; levator: points; urethral rotation, probe angle:
radians; breathing: points).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np

from .body import Body
from .courses import Valsalva, sway
from .motion import Pose, Velocity, ellipse_distance, face_distance, hold, push, turn
from .paint import Canvas, Grid, band, curve, within
from .probe import PERSISTENCE, Display, FloatArray, Point, Probe, Range, Seed, evenly

NECK, EDGE = slice(0, 2), slice(2, 4)
LEVATOR, ROTATION, PROBE_ANGLE, BREATH = 4, 5, 6, 7
_REACH = np.array([15.5, 23.0])
_BEHIND = np.array([8.0, 3.0])  # mm from the neck: most of what moves is behind it
_SPILL = 0.65  # share of the push that returns beside the midsagittal plane
_TURN_REACH = 10.0
_LEVATOR_REACH = np.array([13.0, 13.0])
_BREATH_REACH = np.array([45.0, 30.0])
_APART = (("neck", "meatus"), ("verge", "junction"), ("neck", "edge"))
_FLUID = -45.0  # echogenicity of urine: what is seen there is noise and the beam's flanks
_BONE_LOSS = 6.0  # dB per mm there and back: a haze is left behind its edges
_HAZE = 31.0  # dB: reverberation under the bladder's near wall, above urine


@dataclass(frozen=True)
class PelvicParameters:
    """One subject. Lengths in mm, angles in degrees; ranges are wider than the population."""

    probe: Probe
    display: Display
    edge: Point  # lower edge of the symphysis, the keypoint `symphysis`
    symphysis: Annotated[tuple[float, float], Range(3, 80)]  # length, thickness
    symphysis_angle: Annotated[float, Range(-180, 180)]  # of its axis above the horizontal
    neck: Point  # bladder neck at rest, the other keypoint
    bladder: Annotated[tuple[float, float], Range(3, 100)]  # length, width
    bladder_angle: Annotated[float, Range(-180, 180)]  # of its axis from the vertical
    wall: Annotated[float, Range(0.5, 20)]  # of the bladder
    urethra: Annotated[float, Range(1, 40)]  # width
    meatus: Point  # the urethra's end near the face
    junction: Point  # anorectal junction
    verge: Point  # the anal canal's end near the face
    anorectal: Annotated[float, Range(30, 180)]  # angle between canal and rectum
    hiatus: Annotated[float, Range(5, 150)]  # symphysis to levator; on record only (see junction)
    fat: Annotated[float, Range(0, 40)]  # thickness of the layer under the skin
    manoeuvre: Valsalva
    seed: Seed  # of tissue grain


class Pelvic(Body):
    """A subject's pelvic floor."""

    Parameters = PelvicParameters
    keypoint_names = ("bladder_neck", "symphysis")
    node = 1.25  # with 2.0 the field is off by pixels between the symphysis and what passes it

    def __init__(self, parameters: PelvicParameters) -> None:
        p = parameters
        super().__init__(p, np.array([p.neck, p.edge]))
        self.neck, self.edge = self.rest
        # The axis runs up and to the left; the edge is the ellipse's lower right end.
        angle, half_axes = float(np.radians(p.symphysis_angle)), np.array(p.symphysis) / 2
        centre = self.edge - half_axes[0] * np.array([np.cos(angle), np.sin(angle)])
        self.bone = centre, half_axes, angle
        self.levator_rest = np.array(p.junction) + np.array([7.0, 3.0])
        self.deep = np.array([self.neck[0] + 10, 0.95 * p.probe.depth])

    def tissue(self, grid: Grid) -> Canvas:
        p = self.parameters
        canvas = Canvas(grid, np.random.default_rng([p.seed, 1]))
        x, z = canvas.points[..., 0], canvas.points[..., 1]
        face = np.hypot(x, z + p.probe.radius) - p.probe.radius  # depth under the skin

        # The ground: connective tissue and fat, brighter to the right, in strands round the canal.
        canvas.echo += -5 + 4 * canvas.grain(16, 9, 0.5) + 2.5 * canvas.grain(5, 3, 0.7)
        strands = canvas.grain(14, 1.6, np.radians(canvas.rng.uniform(28, 48)))
        canvas.add(np.clip((x - 14) / 8, 0, 1), 3.0 + 4.0 * np.abs(strands) ** 1.5)
        canvas.add(np.clip((-x - 20) / 8, 0, 1), 2.0 + 2.5 * canvas.grain(9, 2.0, -0.5))
        canvas.add(np.clip((z - 50) / 25, 0, 1), -5 + 4 * canvas.grain(20, 3, 0.05))

        canvas.distort(0.9, np.stack([self.neck, self.edge]))
        _organs(self, canvas)
        _anorectum(self, canvas)
        _urethra(self, canvas)
        _bladder(self, canvas)
        _symphysis(self, canvas)

        # Skin, the fat beneath it, and the probe's cover.
        fat = within(face - p.fat, 2.5)
        canvas.lay(0.75 * fat, 2 + 2.5 * canvas.grain(10, 1.2, 0.0))
        canvas.lay(within(face - 2.2, 1.0), -8.0)
        canvas.lay(band(face - 1.4, 0.7), 7.0)
        canvas.lay(within(face - 0.5, 0.4), 12.0)
        return canvas

    def impossible(self, state: FloatArray) -> str | None:
        target = self.pose(state).remove(self.landmarks(state)[0])
        if ellipse_distance(target, *self.bone)[0] < 5:
            return "the bladder neck (neck) is pressed into the symphysis (edge, symphysis)"
        if self.probe.to_polar(target)[0] < 12:
            return "the bladder neck (neck) is pressed into the probe"
        return None

    def states(self, frames: int) -> FloatArray:
        m, time = self.parameters.manoeuvre, np.linspace(0, 1, frames)
        effort = m.strain(time)
        # The neck travels on an arc about the edge, nearer to the probe and to the dorsal side.
        arm = self.neck - self.edge
        reach, angle = np.hypot(*arm), float(np.arctan2(arm[1], arm[0]))
        across = reach * np.cos(angle - np.radians(m.opening))
        end = self.edge + np.array([across, reach * np.sin(angle) - m.descent])
        state = np.zeros((frames, 8))
        path = _arc(self.edge, self.neck, end)
        state[:, LEVATOR] = m.levator * effort
        state[:, ROTATION] = np.radians(m.rotation) * effort
        state[:, BREATH] = m.breathing(time)
        state[:, EDGE], state[:, PROBE_ANGLE] = sway(m.seed, time, m.sway, m.tilt)
        # In the picture the neck is carried along by the probe's sway.
        for row, share in zip(state, effort, strict=True):
            pose = Pose(float(row[PROBE_ANGLE]), self.edge, row[EDGE])
            row[NECK] = pose.place(self.neck + (path(share) - self.neck)) - self.neck
        state[:, [0, 1, 2, 3, LEVATOR, BREATH]] /= self.mm_per_point
        return state

    def out_of_plane(self, frames: int) -> FloatArray:
        m = self.parameters.manoeuvre
        return m.out_of_plane * m.strain(np.linspace(0, 1, frames))

    def velocity(self, state: FloatArray) -> Velocity:
        mm, target = self.mm_per_point, self.pose(state).remove(self.landmarks(state)[0])
        path = _arc(self.edge, self.neck, target)
        levator = mm * float(state[LEVATOR]) * np.array([0.45, -0.9])
        breath = np.array([0.2, 1.0]) * mm * float(state[BREATH])
        rotation = float(state[ROTATION])
        # A longer way takes more tissue with it.
        reach = _REACH + 0.1 * float(np.linalg.norm(target - self.neck))

        def around(points: FloatArray, time: float) -> FloatArray:
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
            rest = self._held(here, around(here, time))[:, 0]
            trials = [self._held(here, push(here, centre, u, reach, _SPILL)) for u in np.eye(2)]
            move = np.linalg.solve(np.concatenate(trials, axis=1), wanted - rest)
            all_of_it = push(points, centre, move, reach, _SPILL) + around(points, time)
            return self._held(points, all_of_it)

        return velocity

    def _held(self, points: FloatArray, stream: FloatArray) -> FloatArray:
        """The velocity of a stream when nothing moves in the bone or at the probe's face."""
        stream = hold(stream, ellipse_distance(points, *self.bone), 13.0)
        return hold(stream, face_distance(points, self.probe.radius), 16.0)[1:]

    def pose(self, state: FloatArray) -> Pose:
        return Pose(float(state[PROBE_ANGLE]), self.edge, self.mm_per_point * state[EDGE])

    @staticmethod
    def unfit(parameters: PelvicParameters) -> str | None:
        p, m = parameters, parameters.manoeuvre
        for one, other in _APART:
            way = math.dist(getattr(p, one), getattr(p, other))
            if way < 5:
                return f"{one} and {other} are {way:.1f} mm apart: 5 mm is the least"
        if p.junction[1] < 8:
            return f"junction is at depth {p.junction[1]:g} mm: it must be at least 8 mm deep"
        times = {name: getattr(m, name) for name in ("start", "peak", "release")}
        if not m.start < m.peak < m.release:
            named = ", ".join(f"manoeuvre.{name} {time:g}" for name, time in times.items())
            return f"{named}: they must come in this order"
        return None

    @staticmethod
    def draw(rng: np.random.Generator) -> PelvicParameters:
        between = partial(evenly, rng)
        depth = between(72, 95)
        probe = Probe(
            frequency=between(3.5, 6.0), radius=between(40, 60), angle=between(70, 88), depth=depth,
            zoom=between(0.3, 1.0), focus=between(0.4, 0.65) * depth, axial=between(0.5, 0.7),
            lateral=between(1.1, 1.6),
        )  # fmt: skip
        dynamic_range = between(53, 60)
        persistence = PERSISTENCE[rng.integers(3)]
        display = Display(
            dynamic_range=dynamic_range, white=between(23, 29), gamma=between(1.15, 1.7),
            noise=between(52, 62), gain=between(0.17, 0.29), persistence=persistence,
            frame_rate=between(15, 30),
        )  # fmt: skip
        edge = (between(-20, -10), between(17, 26))
        neck = (round(edge[0] + between(8, 17), 3), round(edge[1] + between(20, 28), 3))
        thick = between(12, 18)
        length = between(30, 38)
        descent = round(float(np.clip(rng.gamma(4.0, 17 / 4.0), 1.5, 27)), 3)
        severity = descent / 17
        junction = (round(neck[0] + between(20, 27), 3), round(neck[1] + between(-6, 2), 3))
        manoeuvre = Valsalva(
            start=between(0.06, 0.18), peak=between(0.42, 0.58), release=between(0.82, 0.97),
            left=between(0.0, 0.35), descent=descent, opening=between(4, 12) * min(severity, 2.0),
            rotation=round(float(np.clip(rng.normal(32, 18) * severity**0.5, 0, 85)), 3),
            levator=round(float(np.clip(rng.normal(9, 4) * severity**0.5, 0, 20)), 3),
            breath=between(0.3, 1.6), breaths=between(0.6, 1.8), sway=between(1.0, 4.0),
            tilt=between(1.0, 4.0), out_of_plane=between(0.0, 1.2),
            seed=int(rng.integers(2**31)),
        )  # fmt: skip
        # In the order of the fields.
        bone = edge, (length, thick), between(20, 40)
        bladder = neck, (between(20, 46), between(12, 38)), between(-28, 8), between(3, 5)
        urethra = between(10, 14), (round(edge[0] + between(15, 21), 3), between(5, 8))
        verge = (round(junction[0] + between(-2, 6), 3), between(3, 5))
        behind = junction, verge, between(95, 125), between(45, 55), between(6, 11)
        seed = int(rng.integers(2**31))
        return PelvicParameters(probe, display, *bone, *bladder, *urethra, *behind, manoeuvre, seed)


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


def _organs(body: Pelvic, canvas: Canvas) -> None:
    """Vagina: a stripe behind the urethra; cervix: a grey mass behind the bladder; gut: deep, with
    bright air that casts a dirty shadow."""
    p, rng = body.parameters, canvas.rng
    entry = np.array([(p.meatus[0] + p.verge[0]) / 2, 4.0])
    middle = (body.neck + np.array(p.junction)) / 2 + np.array([1.0, 0.0])
    top = middle + np.array([-2.0, 22.0])
    vagina = curve([entry, (entry + middle) / 2 + np.array([1.5, 0]), middle, top])
    gap = canvas.stroke(vagina)
    canvas.lay(0.8 * within(gap - 3.4, 1.5), -7 + 1.5 * canvas.grain(6, 2, 1.4))
    canvas.lay(0.9 * band(gap, 0.8, 0.8), 6.0)
    mass = top + np.array([6.0, 10.0])
    cervix = canvas.ellipse(mass, np.array([13.0, 17.0]), rng.uniform(-0.4, 0.4))
    canvas.lay(0.8 * within(cervix, 3.0), -6 + 2 * canvas.grain(5, 4, 0.3))
    canvas.add(band(cervix, 1.2, 1.2), 5.0)
    for _ in range(rng.integers(1, 4)):
        at = np.array([rng.uniform(-12, 34), rng.uniform(0.78, 0.93) * p.probe.depth])
        air = canvas.ellipse(at, np.array([rng.uniform(4, 9), 1.4]), rng.uniform(-0.4, 0.4))
        canvas.lay(within(air, 1.0), 15 + 3 * canvas.grain(3, 1, 0.0), 1.2)


def _anorectum(body: Pelvic, canvas: Canvas) -> None:
    """Canal: dark sphincter about bright mucosa; behind it the levator plate as a bright sling."""
    p = body.parameters
    verge, junction = np.array(p.verge), np.array(p.junction)
    along = (verge - junction) / np.linalg.norm(verge - junction)
    c, s = np.cos(np.radians(p.anorectal)), np.sin(np.radians(p.anorectal))
    away = np.array([along[0] * c - along[1] * s, along[0] * s + along[1] * c])
    bend = (verge + junction) / 2 + np.array([-1.5, 0])
    rectum = curve([verge, bend, junction, junction + 14 * away, junction + 30 * away])
    gap = canvas.stroke(rectum)
    canvas.lay(0.85 * within(gap - 6.5, 1.5), 3 + 2 * canvas.grain(5, 1.5, 1.2))
    canvas.lay(0.9 * band(gap - 3.6, 2.2, 1.0), -13.0)
    canvas.lay(0.8 * within(gap - 1.6, 1.0), 3 + 3 * canvas.grain(3, 1, 1.2))
    # The levator: from behind the junction towards the coccyx, a ribbon of bright fibres.
    start = body.levator_rest
    toward = np.array([np.cos(np.radians(canvas.rng.uniform(18, 34))), 0.42])
    plate = curve([start - np.array([3.0, 7.0]), start, start + 16 * toward, start + 34 * toward])
    sheet = canvas.stroke(plate)
    canvas.lay(0.9 * within(sheet - 3.6, 1.4), 8 + 4 * canvas.grain(12, 1.3, 0.45))
    canvas.add(band(sheet - 5.2, 1.2, 1.0), -8.0)


def _urethra(body: Pelvic, canvas: Canvas) -> None:
    """A dark core in a grey sheath, from the neck to the meatus."""
    p = body.parameters
    meatus = np.array(p.meatus)
    bend = (body.neck + meatus) / 2 + np.array([1.2, 0.0])
    line = curve([body.neck, bend, meatus])
    gap = canvas.stroke(line)
    half = p.urethra / 2
    canvas.lay(0.85 * within(gap - half, 1.6), -3 + 2 * canvas.grain(7, 1.5, 1.5))
    canvas.lay(0.9 * within(gap - 0.52 * half, 1.6), -14 + 2 * canvas.grain(6, 1.5, 1.5))
    canvas.add(band(gap - half, 1.0, 1.0), 5.0)
    canvas.lay(0.5 * band(gap, 0.5, 0.6), -4.0)


def _bladder(body: Pelvic, canvas: Canvas) -> None:
    """Urine in a wall; the neck is its lowest point, drawn out to a funnel."""
    p = body.parameters
    tilt = np.radians(p.bladder_angle)
    axis = np.array([np.sin(tilt), np.cos(tilt)])
    half = np.array(p.bladder) / 2
    centre = body.neck + axis * half[0]
    u = (canvas.points - centre) @ np.stack([axis, np.array([axis[1], -axis[0]])], axis=1)
    # A drop: narrower towards the neck, and the less even the farther from it.
    along = u[..., 0] / half[0]
    across = u[..., 1] / (half[1] * (1 + 0.28 * along))
    turn, uneven = np.arctan2(across, -along), np.clip((1 + along) / 2, 0, 1)
    for n in (2, 3, 4):
        amount, phase = canvas.rng.uniform(0, 0.2 / n), canvas.rng.uniform(0, 2 * np.pi)
        across = across * (1 + uneven * amount * np.cos(n * turn + phase))
    gap = (np.hypot(along, across) - 1) * float(half.mean())
    wall = band(gap - p.wall / 2, p.wall, 0.8)
    canvas.lay(0.9 * wall, -1 + 2 * canvas.grain(6, 2, 0.0))
    canvas.add(band(gap - 0.3, 0.8, 0.6), 6.0)
    haze = np.exp(-np.maximum(u[..., 0] + half[0], 0) / 14).astype(np.float32)
    canvas.lay(within(gap, 0.5), _FLUID + _HAZE * haze, 0.02)


def _symphysis(body: Pelvic, canvas: Canvas) -> None:
    """Cartilage in a bright capsule; bone behind, in whose shadow nothing is seen."""
    centre, axes, angle = body.bone
    gap = canvas.ellipse(*body.bone)
    canvas.lay(within(gap - 1.0, 1.2), -7 + 2.5 * canvas.grain(8, 2.5, angle), 0.5)
    canvas.add(within(canvas.ellipse(centre, axes * 0.55, angle), 3.0), 6.0)
    canvas.lay(band(gap - 0.6, 1.4, 0.9), 8 + 2 * canvas.grain(6, 1.5, angle))
    # The pubic bone under it: the deep half of the oval and what lies beyond.
    turned = np.array([-np.sin(angle), np.cos(angle)])
    depth = (canvas.points - centre) @ turned - 0.35 * axes[1]
    behind = within(gap + 1.2, 1.0) * within(-depth, 2.0)
    canvas.lay(behind, -10.0, _BONE_LOSS)
